"""What answers are worth against known labels. Pure numpy; every figure with its interval where it has one.

Shapes: `allowed` `[N, V]` is true for each value that the truth admits ("medium|high" admits two; an answer is right
when it is any of them), `answers` `[N]` are value indices, `p` `[N, V]` probabilities, V in order of severity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from classifier.schema import Dimension
from training.corpus.rows import Label
from training.jobs import figures

BOOTSTRAP = 1_000
"""Resamples behind each interval of a macro-F1: percentiles 2.5 and 97.5."""
SEED = 13
BLOCK = 100
"""Resamples at a time: a block of weights is `[BLOCK, N]`."""
BINS = 15
Z95 = 1.959963984540054
FLOOR_P = 1e-12

Floats = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Statistic = Callable[[Floats], Floats]
"""Weights `[B, N]`, how often each row was drawn, to `[B]` values."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; all None where there are no rows."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        return {"value": _round(self.value), "low": _round(self.low), "high": _round(self.high)}


class Rate(figures.Rate):
    """With Wilson's score interval."""

    __slots__ = ()

    def as_dict(self) -> dict[str, float | int | None]:
        low, high = wilson(self.hits, self.total)
        limits = {"low": _round(low), "high": _round(high)}
        return {"hits": self.hits, "total": self.total, "share": _round(self.share), **limits}


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


def wilson(hits: int, total: int) -> tuple[float | None, float | None]:
    """Wilson (1927): (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    if not total:
        return None, None
    share, scale = hits / total, Z95**2 / total
    half = Z95 * math.sqrt(share * (1 - share) / total + scale / (4 * total))
    middle = share + scale / 2
    return max(0.0, (middle - half) / (1 + scale)), min(1.0, (middle + half) / (1 + scale))


def admit(label: Label | None, dimension: Dimension) -> tuple[bool, ...] | None:
    """Which values the truth admits; of a distribution the likeliest, all of them in a tie. None: unknown."""
    if label is None:
        return None
    if isinstance(label, Mapping):
        best = max(label.values())
        wanted = {value for value, share in label.items() if share == best}
    else:
        wanted = set(label.split("|"))
    return tuple(name in wanted for name in dimension.names)


def encode_truth(labels: Sequence[Label | None], dimension: Dimension) -> tuple[Indices, Bools]:
    """The places of the rows whose label is known, `[M]`, and what each admits, `[M, V]`."""
    known = [(place, row) for place, label in enumerate(labels) if (row := admit(label, dimension)) is not None]
    places = np.array([place for place, _ in known], dtype=np.int64)
    return places, np.array([row for _, row in known], dtype=bool).reshape(-1, len(dimension.names))


def is_right(allowed: Bools, answers: Indices) -> Bools:
    right: Bools = allowed[np.arange(len(answers)), answers]
    return right


def resolve(allowed: Bools, answers: Indices) -> Indices:
    """The one value each truth is counted as: the answer where it is admitted, else the nearest admitted value."""
    ranks = np.arange(allowed.shape[1])
    distance = np.abs(ranks[None, :] - answers[:, None])
    nearest: Indices = np.where(allowed, distance, allowed.shape[1]).argmin(1)
    return nearest


def count_confusion(truth: Indices, answers: Indices, values: int, weights: Floats) -> Floats:
    """`[B, V, V]`, truth by answer, for weights `[B, N]`."""
    cells = np.zeros((len(truth), values * values))
    cells[np.arange(len(truth)), truth * values + answers] = 1.0
    counted: Floats = (weights @ cells).reshape(-1, values, values)
    return counted


def macro_f1(confusion: Floats) -> Floats:
    """`[B]`: mean of F1 = 2 hits / (true + answered) over the values that occur in the truth; NaN where none does."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, answered = confusion.sum(-1), confusion.sum(-2)
    occurs = true > 0
    f1 = np.where(occurs, 2 * hits / np.maximum(true + answered, 1e-12), 0.0)
    with np.errstate(invalid="ignore"):
        mean: Floats = f1.sum(-1) / occurs.sum(-1)
    return mean


def bootstrap(statistic: Statistic, rows: int, *, times: int = BOOTSTRAP, seed: int = SEED) -> Estimate:
    """The statistic of all rows, and the middle 95 % of its values on `times` resamples of them, with replacement."""
    if not rows:
        return Estimate(None)
    drawn = _draw(rows, times, seed)
    found = [statistic(drawn[begin : begin + BLOCK].astype(float)) for begin in range(0, times, BLOCK)]
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return Estimate(float(statistic(np.ones((1, rows)))[0]), float(low), float(high))


@lru_cache(maxsize=4)
def _draw(rows: int, times: int, seed: int) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """`[times, rows]`: how often each row is drawn. Kept, since every arm is measured on the same rows."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=times).astype(np.int16)


def f1_statistic(allowed: Bools, answers: Indices) -> Statistic:
    truth, values = resolve(allowed, answers), allowed.shape[1]
    return lambda weights: macro_f1(count_confusion(truth, answers, values, weights))


def estimate_f1(allowed: Bools, answers: Indices, *, times: int = BOOTSTRAP) -> Estimate:
    return bootstrap(f1_statistic(allowed, answers), len(answers), times=times)


def estimate_f1_gain(allowed: Bools, answers: Indices, others: Indices, *, times: int = BOOTSTRAP) -> Estimate:
    """Macro-F1 of `answers` minus that of `others`, paired: both are measured on the same resamples."""
    ours, theirs = f1_statistic(allowed, answers), f1_statistic(allowed, others)
    return bootstrap(lambda weights: ours(weights) - theirs(weights), len(answers), times=times)


def missed_risk(allowed: Bools, answers: Indices, line: int) -> Rate:
    """Of the rows whose every admitted value is `line` or more: those answered less."""
    risky = ~allowed[:, :line].any(1)
    return Rate(int((answers[risky] < line).sum()), int(risky.sum()))


def false_alarm(allowed: Bools, answers: Indices, line: int) -> Rate:
    """Of the rows whose every admitted value is below `line`: those answered `line` or more."""
    safe = ~allowed[:, line:].any(1)
    return Rate(int((answers[safe] >= line).sum()), int(safe.sum()))


def auroc(score: Floats, is_positive: Bools) -> float | None:
    """P(score of a positive > score of a negative), ties count half; None where one side is missing."""
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def expected_calibration_error(confidence: Floats, right: Bools, *, bins: int = BINS) -> float | None:
    """Σ over equal-width bins of (share of rows) · |accuracy - mean confidence|."""
    if not len(confidence):
        return None
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=right.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def brier(p: Floats, truth: Indices) -> float | None:
    """Mean of Σ over values of (p - 1[true])²: 0 at best, 2 at worst."""
    if not len(p):
        return None
    return float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(1).mean())


def negative_log_likelihood(p: Floats, truth: Indices) -> float | None:
    if not len(p):
        return None
    return float(-np.log(np.maximum(p[np.arange(len(p)), truth], FLOOR_P)).mean())


@dataclass(frozen=True, slots=True)
class SelectiveCurve:
    """Accuracy of the surest answers. `coverage` rises to 1; rows of equal confidence come in together."""

    coverage: Floats
    accuracy: Floats

    @property
    def area(self) -> float | None:
        """Σ (coverage step) · accuracy: the mean accuracy over all coverages."""
        return float((np.diff(self.coverage, prepend=0.0) * self.accuracy).sum()) if len(self.coverage) else None

    def coverage_at(self, target: float) -> float | None:
        """The largest share of rows whose accuracy reaches the target; None where none does."""
        reached = np.flatnonzero(self.accuracy >= target)
        return float(self.coverage[reached[-1]]) if len(reached) else None

    def thin(self, points: int) -> list[list[float]]:
        """At most so many points, the last one among them."""
        if not len(self.coverage):
            return []
        keep = np.unique(np.linspace(0, len(self.coverage) - 1, points).astype(int))
        return [[round(float(self.coverage[at]), 4), round(float(self.accuracy[at]), 4)] for at in keep]


def selective_curve(confidence: Floats, right: Bools) -> SelectiveCurve:
    order = np.argsort(-confidence, kind="stable")
    counted = np.arange(1, len(order) + 1)
    # The last of each group of equal confidences: no limit could part them.
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True)) if len(order) else counted
    right_so_far = np.cumsum(right[order])
    return SelectiveCurve(counted[ends] / max(len(order), 1), right_so_far[ends] / counted[ends])
