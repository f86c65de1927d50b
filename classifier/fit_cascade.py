"""Fit where the cascade asks the LLM: as seldom as held-out rows allow. Pure numpy.

Every limit starts so high that all rows are asked. Then limits are lowered by turns, a step at a time, as long as the
answers over all rows, BERT's own where it is not asked and the blend's where it is, stay as good as the blend's. The
limits are fitted together: a row that one of them sends to the LLM is asked, whatever the others say.

How good an answer is, is an expectation under the calibrated blend, not a count of hits on the rows: a count over few
rows goes up and down by luck, and limits lowered step by step would stop where the luck is best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifier.hybrid import ARMS, Calibration, Cascade, at_least, blend, risk_label
from classifier.schema import Schema
from classifier.types import ArmScores, Probabilities

MIN_ROWS = 20
"""With fewer rows that both arms scored nothing is fitted; the identity's limits stay."""
ACCURACY_LOSS = 0.005
"""What a dimension may lose of its expected accuracy."""
COST_LOSS = 0.01
"""What the risk labels may cost more than the blend's, as a share of its expected cost."""
STEP = 0.02
Floats = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One dimension of all rows: BERT's own answer beside the blend's."""

    answer: Indices
    """`[N]`, the likeliest value by BERT alone."""
    p: Floats
    """`[N]`, its probability."""
    loss: Floats
    """`[N]`, what BERT's label is expected to lose against the blend's."""
    allowed: float
    """What all rows that are not asked may lose together."""


@dataclass(slots=True)
class Limits:
    """Cell (dimension, value) -> confidence; and the band of P(risk >= medium)."""

    confidence: dict[tuple[str, int], float]
    hint: float = 0.0
    sure: float = 1.0 + STEP

    def asked(self, compared: Mapping[str, Comparison], p_risky: Floats) -> Bools:
        """`[N]`, which rows go to the LLM."""
        found = (p_risky >= self.hint) & (p_risky < self.sure)
        for (name, value), limit in self.confidence.items():
            found = found | ((compared[name].answer == value) & (compared[name].p < limit))
        return found


def fit_cascade(
    rows_scores: Sequence[Mapping[str, ArmScores]],
    calibration: Calibration,
    schema: Schema,
    cost: Mapping[str, Mapping[str, float]],
) -> Cascade:
    """`calibration` brings temperatures, weights and risk thresholds; its own limits are not looked at.

    Rows that lack an arm are left out; labels are not needed. `cost[true][answered]` is of the risk.
    """
    rows = [scores for scores in rows_scores if all(arm in scores for arm in ARMS)]
    if len(rows) < MIN_ROWS:
        return Calibration.identity(schema).cascade
    alone = [blend({"bert": scores["bert"]}, calibration, schema) for scores in rows]
    both = [blend(scores, calibration, schema) for scores in rows]
    compared = {
        name: compare(name, alone, both, calibration, schema, cost if name == "risk" else None) for name in schema.names
    }
    p_risky = np.array([at_least(row["risk"], schema["risk"], "medium") for row in alone])
    limits = lower(compared, p_risky, schema)
    return Cascade(
        confidence={
            dimension.name: {
                value: round(min(limits.confidence[dimension.name, place], 1.0), 6)
                for place, value in enumerate(dimension.names)
            }
            for dimension in schema.dimensions
        },
        risk_hint=round(min(limits.hint, 1.0), 6),
        risk_sure=round(min(limits.sure, 1.0), 6),
    )


def compare(
    name: str,
    alone: Sequence[Probabilities],
    both: Sequence[Probabilities],
    calibration: Calibration,
    schema: Schema,
    cost: Mapping[str, Mapping[str, float]] | None,
) -> Comparison:
    """The loss of a label is 1 where it is wrong, or its cost where there is one; expected under the blend."""
    dimension = schema[name]

    def label(row: Mapping[str, float]) -> str:
        if cost is not None:
            return risk_label(row, dimension, calibration.risk_thresholds)
        return max(row, key=row.__getitem__)

    def loss(given: str, row: Mapping[str, float]) -> float:
        if cost is None:
            return 1 - row[given]
        return sum(p * float(cost[truth].get(given, 0)) for truth, p in row.items())

    pairs = [(own[name], blended[name]) for own, blended in zip(alone, both, strict=True)]
    tops = [max(own, key=own.__getitem__) for own, _ in pairs]
    best = np.array([loss(label(blended), blended) for _, blended in pairs])
    by_bert = np.array([loss(label(own), blended) for own, blended in pairs])
    return Comparison(
        answer=np.array([dimension.index(value) for value in tops], dtype=np.int64),
        p=np.array([own[value] for (own, _), value in zip(pairs, tops, strict=True)]),
        loss=by_bert - best,
        allowed=ACCURACY_LOSS * len(pairs) if cost is None else COST_LOSS * float(best.sum()),
    )


def lower(compared: Mapping[str, Comparison], p_risky: Floats, schema: Schema) -> Limits:
    """By turns, until no limit can go one step further."""
    cells = [(item.name, place) for item in schema.dimensions for place in range(len(item.names))]
    limits = Limits(confidence=dict.fromkeys(cells, 1.0 + STEP))
    moves: list[Any] = [*cells, "hint", "sure"]
    while sum(try_step(limits, move, compared, p_risky) for move in moves):
        pass
    return limits


def try_step(limits: Limits, move: Any, compared: Mapping[str, Comparison], p_risky: Floats) -> bool:
    """Move one limit one step towards fewer questions; undone, and False, where the answers would become too bad."""
    before = Limits(dict(limits.confidence), limits.hint, limits.sure)
    if move == "hint":
        limits.hint += STEP / 2
    elif move == "sure":
        limits.sure -= STEP
    else:
        limits.confidence[move] -= STEP
    at_end = limits.hint > 0.5 or limits.sure < 0.5 or min(limits.confidence.values()) < 0
    silent = ~limits.asked(compared, p_risky)
    if at_end or any(item.loss[silent].sum() > item.allowed + 1e-9 for item in compared.values()):
        limits.confidence, limits.hint, limits.sure = before.confidence, before.hint, before.sure
        return False
    return True
