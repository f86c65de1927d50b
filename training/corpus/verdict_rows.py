"""From verdicts to preferences: rows for kto, reward and label_ppo. Pure; see the table in `compile`.

An *incorrect* without a correction says that something in the line is wrong, not what. Its line is unwanted as a whole
(kto). As a reward:

- where other people hold a label of that line to be wrong, the verdict is explained, and adds nothing;
- else the dimensions that nobody answered are in doubt, and the line's -1 is shared evenly among them: -1/n each.
  With one in doubt (the line has but one label, or others confirm the rest) that is r(a) = -1; with four, -1/4 each.
  Given -1 each, a label that is right nine times in ten would be punished three times out of four by mistake.
- with none in doubt, people contradict each other, which the weight of the kto row shows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from classifier.schema import Dimension, load_schema
from training.corpus.annotators import Panel
from training.corpus.compile import JudgedText, Voice, share_values
from training.corpus.preferences import KtoRow, PairRow, RewardRow

Line = tuple[str, ...]
"""A value for every dimension, in schema order."""
EVEN = 0.5


@dataclass(slots=True)
class Preferences:
    """`left_out` counts as `Compiled.left_out` does."""

    kto: list[KtoRow] = field(default_factory=list)
    pairs: list[PairRow] = field(default_factory=list)
    rewards: list[RewardRow] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def compile_preferences(texts: Iterable[JudgedText], panel: Panel) -> Preferences:
    """In the order of the texts."""
    found = Preferences()
    for text in texts:
        found.left_out["not_whole"] += sum(
            held_line(voice) is None and blamed_line(voice) is None for voice in text.voices
        )
        found.kto += kto_rows(text, found.left_out)
        found.pairs += pair_rows(text, found.left_out)
        rewards = reward_values(text, panel)
        if rewards:
            found.rewards.append(RewardRow(text.id, text.text, rewards, round(text.weight, 6)))
    found.left_out = +found.left_out
    return found


def held_line(voice: Voice) -> Line | None:
    """The whole line that the voice holds to be right. A correction leaves standing what it does not name."""
    labels = {**voice.judged, **voice.answer} if voice.is_correction else voice.answer
    return _line(labels) if voice.answer else None


def blamed_line(voice: Voice) -> Line | None:
    """The whole line that the voice holds to be wrong."""
    judged = _line(voice.judged)
    if not voice.answer:
        return judged
    return judged if voice.is_correction and judged != held_line(voice) else None


def _line(labels: Mapping[str, str]) -> Line | None:
    names = load_schema().names
    return tuple(labels[name] for name in names) if all(name in labels for name in names) else None


def _labels(line: Line) -> dict[str, str]:
    return dict(zip(load_schema().names, line, strict=True))


def kto_rows(text: JudgedText, left_out: Counter[str]) -> list[KtoRow]:
    """A row for each line that somebody held to be right or wrong; its weight is the share of the larger side."""
    held = [(line, voice.weight) for voice in text.voices if (line := held_line(voice))]
    blamed = [(line, voice.weight) for voice in text.voices if (line := blamed_line(voice))]
    rows = []
    for number, line in enumerate(sorted({line for line, _ in held + blamed}), 1):
        sides = [[weight for other, weight in side if other == line] for side in (held, blamed)]
        total, count = sum(map(sum, sides)), sum(map(len, sides))
        share = sum(sides[0]) / total
        if _is_even(share):
            left_out["tie"] += 1
            continue
        weight = round(max(share, 1 - share) * total / count, 6)
        rows.append(KtoRow(f"{text.id}-{number}", text.text, _labels(line), share > EVEN, weight))
    return rows


def pair_rows(text: JudgedText, left_out: Counter[str]) -> list[PairRow]:
    """A pair for each correction of a whole line, the better one as most voices have it."""
    held: dict[Line, float] = {}
    corrections = set[tuple[Line, Line]]()
    for voice in text.voices:
        right, wrong = held_line(voice), blamed_line(voice)
        if right:
            held[right] = held.get(right, 0.0) + voice.weight
        if right and wrong:
            corrections.add((min(right, wrong), max(right, wrong)))
    rows = []
    for number, lines in enumerate(sorted(corrections), 1):
        better, worse = sorted(lines, key=lambda line: -held.get(line, 0.0))
        share = held[better] / (held[better] + held.get(worse, 0.0))
        if _is_even(share):
            left_out["tie"] += 1
            continue
        margin = round(cost_lines(better, worse), 6)
        rows.append(
            PairRow(f"{text.id}-{number}", text.text, _labels(better), _labels(worse), margin, weight=round(share, 6))
        )
    return rows


def cost_lines(true: Line, answered: Line) -> float:
    """The schema's costs, summed over the dimensions that differ."""
    return sum(
        dimension.cost[right][given]
        for dimension, right, given in zip(load_schema().dimensions, true, answered, strict=True)
        if right != given
    )


def reward_values(text: JudgedText, panel: Panel) -> dict[str, dict[str, float]]:
    """Dimension -> value -> reward, in schema order; what nobody spoke of is absent."""
    beliefs = {dimension.name: share_values(text, dimension, panel) for dimension in load_schema().dimensions}
    rewards: dict[str, dict[str, float]] = {}
    for dimension in load_schema().dimensions:
        shares = beliefs[dimension.name]
        found = {value: round(share, 6) for value, share in shares.items()}
        for value in _judged_values(text, dimension.name):
            if shares and value not in found:
                found[value] = round(-expect_cost(dimension, shares, value), 6)
        rewards[dimension.name] = found
    for voice in text.voices:
        if not voice.answer:
            _share_blame(voice.judged, beliefs, rewards)
    return {
        dimension.name: {
            value: rewards[dimension.name][value] for value in dimension.names if value in rewards[dimension.name]
        }
        for dimension in load_schema().dimensions
        if rewards[dimension.name]
    }


def _judged_values(text: JudgedText, dimension: str) -> Sequence[str]:
    """What was judged by those who gave an answer in this dimension."""
    return [voice.judged[dimension] for voice in text.voices if dimension in voice.answer and dimension in voice.judged]


def expect_cost(dimension: Dimension, shares: Mapping[str, float], answered: str) -> float:
    """Cost of an answer under what people believe, as a share of the dimension's worst: in [0, 1]."""
    worst = max(cost for row in dimension.cost.values() for cost in row.values())
    return sum(share * dimension.cost[true][answered] for true, share in shares.items() if true != answered) / worst


def _share_blame(
    judged: Mapping[str, str], beliefs: Mapping[str, Mapping[str, float]], rewards: dict[str, dict[str, float]]
) -> None:
    if any(beliefs[name] and beliefs[name].get(value, 0.0) < EVEN for name, value in judged.items()):
        return
    doubtful = [name for name in judged if not beliefs[name]]
    for name in doubtful:
        known = rewards[name].get(judged[name], 0.0)
        rewards[name][judged[name]] = min(known, round(-1 / len(doubtful), 6))


def _is_even(share: float) -> bool:
    return abs(share - EVEN) < 1e-9
