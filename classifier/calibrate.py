"""Fit temperatures, blend weights and risk thresholds on held-out rows, then the cascade (`fit_cascade`). Pure numpy.

Rows are texts the arms were not trained on: per row the scores of each arm, and the true labels as far as known.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classifier.fit_cascade import fit_cascade
from classifier.hybrid import ARMS, FLOOR_P, TOP_RISK, Abstain, Calibration, decide_labels
from classifier.rules.engine import RuleVerdict
from classifier.schema import Dimension, Schema, load_schema
from classifier.types import ArmScores, Labels

MIN_ROWS = 20
"""With fewer labelled rows nothing is fitted for a dimension; the identity stays."""
TEMPERATURES = (0.2, 10.0)
WEIGHTS = np.linspace(0, 1, 21)
THRESHOLDS = np.linspace(0.05, 0.95, 19)

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Vector = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of one dimension that have a label and every arm. `log_p[arm]` is `[N, V]`, `truth` is `[N]`."""

    log_p: Mapping[str, Matrix]
    truth: Indices

    def blended(self, weight: Mapping[str, float]) -> Matrix:
        """`[N, V]` log-probabilities of the blend."""
        total: Matrix = np.sum([weight[arm] * log_p for arm, log_p in self.log_p.items()], axis=0)
        return log_softmax(total)


def fit_calibration(
    rows_scores: Sequence[Mapping[str, ArmScores]],
    rows_labels: Sequence[Labels],
    *,
    schema: Schema | None = None,
    risk_cost: Mapping[str, Mapping[str, float]] | None = None,
) -> Calibration:
    """`rows_scores[i]` maps an arm to its scores; `rows_labels[i]` may lack dimensions.

    A row without one of the arms counts for the other arm's temperature only. `risk_cost[true][answered]` is the
    schema's own by default.
    """
    schema = schema or load_schema()
    calibration = Calibration.identity(schema)
    arms = [arm for arm in ARMS if any(arm in scores for scores in rows_scores)]
    temperature = {
        arm: {
            dimension.name: fit_temperature(collect(rows_scores, rows_labels, dimension, [arm]))
            for dimension in schema.dimensions
        }
        if arm in arms
        else calibration.temperature[arm]
        for arm in ARMS
    }
    samples = {
        dimension.name: scale(collect(rows_scores, rows_labels, dimension, arms), temperature, dimension.name)
        for dimension in schema.dimensions
    }
    weight = {name: fit_weight(sample) for name, sample in samples.items()}
    calibration = replace(calibration, temperature=temperature, weight=weight)
    risk = schema["risk"]
    cost = risk_cost or risk.cost
    p_risk = np.exp(samples["risk"].blended(weight["risk"]))
    calibration = replace(calibration, risk_thresholds=fit_risk_thresholds(p_risk, samples["risk"].truth, risk, cost))
    return replace(calibration, cascade=fit_cascade(rows_scores, calibration, schema, cost))


def collect(
    rows_scores: Sequence[Mapping[str, ArmScores]],
    rows_labels: Sequence[Labels],
    dimension: Dimension,
    arms: Sequence[str],
) -> Sample:
    """The rows that have a label for this dimension and scores of all these arms."""
    usable = [
        (scores, labels[dimension.name])
        for scores, labels in zip(rows_scores, rows_labels, strict=True)
        if dimension.name in labels and all(arm in scores for arm in arms)
    ]
    log_p = {}
    for arm in arms:
        table = [[scores[arm].probabilities[dimension.name][name] for name in dimension.names] for scores, _ in usable]
        log_p[arm] = np.log(np.maximum(np.array(table, dtype=float).reshape(-1, len(dimension.names)), FLOOR_P))
    return Sample(log_p, np.array([dimension.index(label) for _, label in usable], dtype=np.int64))


def scale(sample: Sample, temperature: Mapping[str, Mapping[str, float]], name: str) -> Sample:
    scaled = {arm: log_softmax(log_p / temperature[arm][name]) for arm, log_p in sample.log_p.items()}
    return Sample(scaled, sample.truth)


def fit_temperature(sample: Sample) -> float:
    """T that minimises the NLL of softmax(log p / T) for the one arm of a sample. The NLL is convex in 1/T."""
    (log_p,) = sample.log_p.values()
    if len(sample.truth) < MIN_ROWS:
        return 1.0
    low, high = TEMPERATURES
    inverse = minimise(lambda value: nll(log_softmax(log_p * value), sample.truth), 1 / high, 1 / low)
    return float(1 / inverse)


def fit_weight(sample: Sample) -> dict[str, float]:
    """Arm weights by NLL; the blend must beat the better single arm on rows it was not fitted on, else that arm is it.

    The rows are halved by parity: each half is scored with the weight fitted on the other.
    """
    if len(sample.log_p) < 2:
        return {arm: float(arm in sample.log_p) for arm in ARMS} if sample.log_p else {"bert": 0.5, "llm": 0.5}
    if len(sample.truth) < MIN_ROWS:
        return {"bert": 0.5, "llm": 0.5}
    single = {arm: nll(log_p, sample.truth) for arm, log_p in sample.log_p.items()}
    best = min(single, key=single.__getitem__)
    odd = np.arange(len(sample.truth)) % 2 == 1
    crossed = sum(
        nll(part.blended(best_weight(other)), part.truth) * len(part.truth)
        for part, other in ((take(sample, odd), take(sample, ~odd)), (take(sample, ~odd), take(sample, odd)))
    ) / len(sample.truth)
    if crossed >= single[best]:
        return {arm: float(arm == best) for arm in ARMS}
    return best_weight(sample)


def best_weight(sample: Sample) -> dict[str, float]:
    losses = [nll(sample.blended({"bert": w, "llm": 1 - w}), sample.truth) for w in WEIGHTS]
    bert = round(float(WEIGHTS[int(np.argmin(losses))]), 6)
    return {"bert": bert, "llm": round(1 - bert, 6)}


def fit_risk_thresholds(
    p: Matrix, truth: Indices, risk: Dimension, cost: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """The pair of thresholds with the least total cost; in the middle of those that tie. `p` is `[N, V]`."""
    medium, high = risk.index("medium"), risk.index("high")
    if len(truth) < MIN_ROWS or not (truth >= medium).any():
        return {"medium": 0.5, "high": 0.5}
    costs = np.array([[float(cost[true].get(answered, 0)) for answered in risk.names] for true in risk.names])
    p_medium, p_high = p[:, medium:].sum(1), p[:, high:].sum(1)
    rest = p[:, :medium].argmax(1)
    totals = np.empty((len(THRESHOLDS), len(THRESHOLDS)))
    for row, t_medium in enumerate(THRESHOLDS):
        for column, t_high in enumerate(THRESHOLDS):
            answered = np.where(p_high >= t_high, high, np.where(p_medium >= t_medium, medium, rest))
            totals[row, column] = costs[truth, answered].sum()
    tied = np.argwhere(totals <= totals.min() + 1e-9)
    # Ties need not form a rectangle: take the tied pair nearest to their centre.
    row, column = tied[np.abs(tied - tied.mean(0)).sum(1).argmin()]
    return {"medium": round(float(THRESHOLDS[row]), 6), "high": round(float(THRESHOLDS[column]), 6)}


def fit_abstain(
    rows_scores: Sequence[Mapping[str, ArmScores]],
    rows_labels: Sequence[Labels],
    calibration: Calibration,
    target: float,
    *,
    schema: Schema | None = None,
) -> Abstain | None:
    """What to withhold under this calibration so that the rest is right as often as `target`; None if nothing helps.

    Rows as in `fit_calibration`; those with a risk label and every arm count. The rules are left out: what they decide
    is never withheld.
    """
    schema = schema or load_schema()
    plain = replace(calibration, abstain=None)
    arms = {arm for scores in rows_scores for arm in scores}
    decided = [
        (outcome.labels["risk"], outcome.probabilities["risk"], labels["risk"])
        for scores, labels in zip(rows_scores, rows_labels, strict=True)
        if "risk" in labels and arms and arms <= set(scores)
        for outcome in [decide_labels(scores, RuleVerdict(), plain, schema)]
    ]
    confidence = np.array([row[label] for label, row, _ in decided], dtype=float)
    right = np.array([label == truth for label, _, truth in decided], dtype=bool)
    always_given = np.array([label == TOP_RISK for label, _, _ in decided], dtype=bool)
    return find_limit(confidence, right, always_given, target)


def find_limit(confidence: Vector, right: Bools, always_given: Bools, target: float) -> Abstain | None:
    """The lowest limit whose selective accuracy on MIN_ROWS rows or more reaches the target."""
    for limit in (0.0, *np.unique(confidence)):
        given = (confidence >= limit) | always_given
        if given.sum() < MIN_ROWS:
            break
        if right[given].mean() >= target:
            return Abstain(target=target, limit=float(limit), coverage=round(float(given.mean()), 6))
    return None


def take(sample: Sample, keep: Bools) -> Sample:
    return Sample({arm: log_p[keep] for arm, log_p in sample.log_p.items()}, sample.truth[keep])


def nll(log_p: Matrix, truth: Indices) -> float:
    """Mean negative log-likelihood of `truth`, `[N]`, under `log_p`, `[N, V]`."""
    return float(-log_p[np.arange(len(truth)), truth].mean())


def log_softmax(logits: Matrix) -> Matrix:
    shifted: Matrix = logits - logits.max(-1, keepdims=True)
    log_p: Matrix = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return log_p


def minimise(loss: Callable[[float], float], low: float, high: float, *, steps: int = 60) -> float:
    """Golden-section search for the minimum of a unimodal function."""
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(steps):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - ratio * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + ratio * (high - low)
            loss_right = loss(right)
    return (low + high) / 2
