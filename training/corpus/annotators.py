"""How much each annotator's word counts: skill by Dawid-Skene where people overlap, and a cap on anybody's influence.

One-coin Dawid-Skene (Zhang et al. 2016, JMLR 17) on the texts that several people answered: an annotator
gives the true value of a dimension with probability s, and each of the K - 1 others with (1 - s) / (K - 1).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from classifier.schema import Dimension, load_schema

MIN_SHARED_TEXTS = 20
"""Texts that two or more people answered. With fewer a skill is mostly chance, and everybody counts the same."""
MIN_OVERLAPPING_PEOPLE = 3
"""Where two disagree, nothing says which of them is right."""
PRIOR_VOTES = 10.0
"""So many votes at the team's mean skill stand beside each person's own."""
SURE = 0.99
"""Highest skill: no number of votes makes a soft label a certain one."""
ROUNDS = 200
"""Of expectation and maximisation, at most."""
SETTLED = 1e-7
"""A round that changes no skill by more is the last."""
LEAST = 1e-10
"""Probability that stands for 0, whose logarithm there is none of."""


@dataclass(frozen=True, slots=True)
class Vote:
    """`worker` is what the skill belongs to: imported answers, whose authors are unknown, share one."""

    task: str
    worker: str
    dimension: str
    value: str


@dataclass(frozen=True, slots=True)
class Skill:
    """`accuracy`: dimension -> s, shrunk to the team's mean. `trust`: s beyond chance, the best of the team = 1."""

    accuracy: Mapping[str, float]
    trust: float
    shared_votes: int


@dataclass(frozen=True, slots=True)
class Panel:
    """The people behind the feedback. `skills` is empty where all count the same; `why` says which it is."""

    skills: Mapping[str, Skill]
    why: str
    factors: Mapping[str, float]
    """Annotator -> what the cap on influence leaves of their weight, in (0, 1]; absent = all."""

    def factor(self, annotator: str) -> float:
        return self.factors.get(annotator, 1.0)

    def trust(self, worker: str) -> float:
        return self.skills[worker].trust if worker in self.skills else self.mean_trust

    @property
    def mean_trust(self) -> float:
        """Of somebody who shares no text with others."""
        shared = sum(skill.shared_votes for skill in self.skills.values())
        return sum(skill.trust * skill.shared_votes for skill in self.skills.values()) / shared if shared else 1.0

    def accuracy(self, worker: str, dimension: str) -> float:
        known = self.skills.get(worker)
        if known is not None and dimension in known.accuracy:
            return known.accuracy[dimension]
        pool = [skill.accuracy[dimension] for skill in self.skills.values() if dimension in skill.accuracy]
        return sum(pool) / len(pool) if pool else SURE


EQUAL = Panel({}, "everybody counts the same", {})


def fit_panel(votes: Sequence[Vote]) -> Panel:
    """Skills from the votes on shared texts, in whatever order the votes come. Nobody is capped yet."""
    voices: dict[str, set[str]] = {}
    for vote in votes:
        voices.setdefault(vote.task, set()).add(vote.worker)
    shared = {task for task, workers in voices.items() if len(workers) > 1}
    people = {worker for task in shared for worker in voices[task]}
    if len(shared) < MIN_SHARED_TEXTS or len(people) < MIN_OVERLAPPING_PEOPLE:
        return replace(
            EQUAL,
            why=f"everybody counts the same: {len(shared)} texts were answered by several people, {len(people)} people "
            f"in all; telling skills apart takes {MIN_SHARED_TEXTS} texts and {MIN_OVERLAPPING_PEOPLE} people",
        )
    overlapping = sorted((vote for vote in votes if vote.task in shared), key=astuple)
    fitted = {
        dimension.name: _shrink([vote for vote in overlapping if vote.dimension == dimension.name])
        for dimension in load_schema().dimensions
    }
    why = f"Dawid-Skene over {len(shared)} texts that several of {len(people)} people answered"
    return Panel(_rate(fitted, Counter((vote.worker, vote.dimension) for vote in overlapping)), why, {})


def _shrink(votes: Sequence[Vote]) -> dict[str, float]:
    """Worker -> s of one dimension."""
    counts = Counter(vote.worker for vote in votes)
    raw = fit_one_coin(votes)
    mean = sum(raw[worker] * count for worker, count in counts.items()) / max(len(votes), 1)
    return {
        worker: min((raw[worker] * count + mean * PRIOR_VOTES) / (count + PRIOR_VOTES), SURE)
        for worker, count in counts.items()
    }


def fit_one_coin(votes: Sequence[Vote]) -> dict[str, float]:
    """Worker -> probability s of giving the true value of the one dimension that the votes are of. N tasks, K values.

    Expectation-maximisation from the shares of the votes, as crowd-kit's OneCoinDawidSkene (which a test holds it to):
      M:  s_w = mean over w's votes of P(task has the voted value),   prior = mean over tasks of P
      E:  P(v) ~ prior(v) prod_w (s_w where w voted v, else (1 - s_w) / (K - 1))
    """
    # Here and not above: most who import this module weigh nobody.
    import numpy as np

    tasks, workers, values = (sorted({getattr(vote, name) for vote in votes}) for name in ("task", "worker", "value"))
    if len(values) < 2:
        return dict.fromkeys(workers, 1.0)
    places = [{name: place for place, name in enumerate(names)} for names in (tasks, workers, values)]
    task = np.array([places[0][vote.task] for vote in votes])
    worker = np.array([places[1][vote.worker] for vote in votes])
    value = np.array([places[2][vote.value] for vote in votes])
    shares = np.zeros((len(tasks), len(values)))
    np.add.at(shares, (task, value), 1.0)
    shares /= shares.sum(1, keepdims=True)
    given = np.bincount(worker)
    skills = np.zeros(len(workers))
    for _ in range(ROUNDS):
        last, prior = skills, np.clip(shares.mean(0), LEAST, None)
        skills = np.clip(np.bincount(worker, shares[task, value]) / given, LEAST, 1 - LEAST)
        if np.abs(skills - last).max() < SETTLED:
            break
        wrong = np.log((1 - skills) / (len(values) - 1))
        logs = np.log(prior) + np.bincount(task, wrong[worker])[:, None]
        np.add.at(logs, (task, value), (np.log(skills) - wrong)[worker])
        shares = np.exp(logs - logs.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
    return {name: float(skill) for name, skill in zip(workers, skills, strict=True)}


def _rate(fitted: Mapping[str, Mapping[str, float]], counts: Mapping[tuple[str, str], int]) -> dict[str, Skill]:
    workers = sorted({worker for worker, _ in counts})
    beyond = {worker: _beyond_chance(worker, fitted, counts) for worker in workers}
    best = max(beyond.values())
    return {
        worker: Skill(
            {name: round(row[worker], 6) for name, row in fitted.items() if worker in row},
            round(beyond[worker] / best, 6) if best > 0 else 1.0,
            sum(counts.get((worker, name), 0) for name in fitted),
        )
        for worker in workers
    }


def _beyond_chance(
    worker: str, fitted: Mapping[str, Mapping[str, float]], counts: Mapping[tuple[str, str], int]
) -> float:
    """(s - 1/K) / (1 - 1/K), at least 0, over the worker's votes in all dimensions."""
    total, votes = 0.0, 0
    for dimension in load_schema().dimensions:
        count = counts.get((worker, dimension.name), 0)
        if count:
            chance = 1 / len(dimension.names)
            total += count * (fitted[dimension.name][worker] - chance) / (1 - chance)
            votes += count
    return max(total / votes, 0.0) if votes else 0.0


@dataclass(frozen=True, slots=True)
class Word:
    """One person's value for a dimension of a text."""

    value: str
    annotator: str
    worker: str
    weight: float


def believe(dimension: Dimension, words: Sequence[Word], panel: Panel) -> dict[str, float]:
    """Share of each value that somebody gave, in schema order; they sum to 1.

    With skills: the Dawid-Skene posterior under a flat prior, P(v) ~ prod_i P(word_i | v)^f_i, f the cap's factor. A
    flat one, since the frequent value (no risk) must not win by being frequent. Without: shares of the weights.
    """
    values = [name for name in dimension.names if any(word.value == name for word in words)]
    if not panel.skills:
        total = sum(word.weight for word in words)
        return {value: sum(word.weight for word in words if word.value == value) / total for value in values}
    logs = {value: sum(_log_likelihood(dimension, word, value, panel) for word in words) for value in values}
    top = max(logs.values())
    raw = {value: math.exp(log - top) for value, log in logs.items()}
    return {value: round(share / sum(raw.values()), 9) for value, share in raw.items()}


def _log_likelihood(dimension: Dimension, word: Word, value: str, panel: Panel) -> float:
    others = len(dimension.names) - 1
    # Worse than chance counts as chance: a vote may say nothing, but never the opposite of what it says.
    skill = max(panel.accuracy(word.worker, dimension.name), 1 / (others + 1))
    return panel.factor(word.annotator) * math.log(skill if word.value == value else (1 - skill) / others)


def cap_influence(masses: Mapping[str, float], cap: float) -> dict[str, float]:
    """Annotator -> factor, for those who hold more than `cap` of all weight after everybody else is scaled down too.

    Nobody is cut below twice an even share: in a team of one or two there is no crowd to hold a person against.
    """
    limit = max(cap, 2 / len(masses)) if masses else 1.0
    ranked = sorted(masses.values(), reverse=True)
    above = 0
    while above * limit < 1 and above < len(ranked):
        allowed = limit * sum(ranked[above:]) / (1 - above * limit)
        if ranked[above] <= allowed * (1 + 1e-9):
            return {name: allowed / mass for name, mass in sorted(masses.items()) if mass > allowed * (1 + 1e-9)}
        above += 1
    return {}


def share_masses(voices: Iterable[Sequence[tuple[str, float]]]) -> dict[str, float]:
    """Annotator -> weight on the rows, from each row's annotators and their weights: a row weighs their mean."""
    masses: dict[str, float] = {}
    for row in voices:
        for annotator, weight in row:
            masses[annotator] = masses.get(annotator, 0.0) + weight / len(row)
    return masses
