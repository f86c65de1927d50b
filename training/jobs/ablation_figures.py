"""The figures of an ablation: every configuration on all rows and on each source, and the comparisons between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifier.schema import Dimension, load_schema
from classifier.types import Labels, Probabilities
from training.corpus.public import SETS
from training.corpus.rows import Label, Row
from training.jobs import measures
from training.jobs.figures import RISKY
from training.jobs.measures import Bools, Estimate, Floats, Indices, Rate

ALL_ROWS = "all"
NO_ANSWER = -1
CURVE_POINTS = 60
TARGETS = (0.9, 0.95, 0.98)
"""Selective accuracies for which the largest coverage is reported."""
BETTER, UNCLEAR, WORSE = "better", "not clearly better", "worse"


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one configuration: per dimension value indices `[N]`, NO_ANSWER where there is none, and `[N, V]`."""

    name: str
    indices: Mapping[str, Indices]
    p: Mapping[str, Floats]
    """Empty for a configuration without probabilities."""


@dataclass(frozen=True, slots=True)
class Compared:
    """`hybrid` is held against the best of `singles`, and everything against `baseline` where that was measured."""

    hybrid: str
    singles: Sequence[str]
    baseline: str


@dataclass(frozen=True, slots=True)
class Truth:
    """Of one dimension: which of the rows are known, `[M]`, and what each admits, `[M, V]`."""

    dimension: Dimension
    places: Indices
    allowed: Bools


def source_of(row: Row) -> str:
    """`bank:F02` and `bank:F03` are one source."""
    return row.source.partition(":")[0]


def encode_answers(name: str, found: Sequence[tuple[Labels, Probabilities | None]]) -> Answers:
    dimensions = load_schema().dimensions
    indices = {
        item.name: np.array(
            [item.index(labels[item.name]) if item.name in labels else NO_ANSWER for labels, _ in found], dtype=np.int64
        )
        for item in dimensions
    }
    has_p = any(row is not None for _, row in found)
    p = {item.name: np.array([_numbers(row, item) for _, row in found], dtype=float) for item in dimensions}
    return Answers(name, indices, p if has_p else {})


def _numbers(row: Probabilities | None, dimension: Dimension) -> list[float]:
    given = (row or {}).get(dimension.name, {})
    return [given.get(name, 0.0) for name in dimension.names]


def find_weak_sources(rows: Sequence[Row]) -> set[str]:
    """Sources with risk labels that stand on both sides of the line ("low|medium|high").

    "low" would satisfy all of them, so that accuracy on such a set rewards missing risk: it is measured by ranking.
    """
    line = load_schema()["risk"].index(RISKY)
    told = {name for name, item in SETS.items() if item.is_weak}
    return told | {source_of(row) for row in rows if _spans(row.labels.get("risk"), line)}


def _spans(label: Label | None, line: int) -> bool:
    if not isinstance(label, str):
        return False
    ranks = [load_schema()["risk"].index(value) for value in label.split("|")]
    return min(ranks) < line <= max(ranks)


def measure_all(
    rows: Sequence[Row], answers: Sequence[Answers], compared: Compared, trained_on: set[str], *, times: int
) -> dict[str, Any]:
    weak = find_weak_sources(rows)
    sources = np.array([source_of(row) for row in rows], dtype=str)
    everything = np.arange(len(rows))
    parts = [(ALL_ROWS, everything)]
    parts += [(name, np.flatnonzero(sources == name)) for name in sorted(set(sources.tolist()))]
    truths = list_truths(rows, everything, weak)
    return {
        "parts": [
            {
                "name": name,
                "rows": len(places),
                "is_weak": name in weak,
                "trained_on": name in trained_on if name != ALL_ROWS else None,
                "configurations": {
                    item.name: measure_part([rows[int(place)] for place in places], places, item, weak, times)
                    | ({"curve": risk_curve(truths, item)} if name == ALL_ROWS else {})
                    for item in answers
                },
            }
            for name, places in parts
        ],
        **compare_all(truths, {item.name: item for item in answers}, compared, times),
    }


def list_truths(rows: Sequence[Row], places: Indices, weak: set[str]) -> list[Truth]:
    """`places` are those of the rows among all; a weak source says nothing of risk here."""
    truths = []
    for dimension in load_schema().dimensions:
        is_left_out = dimension.name == "risk"
        labels = [None if is_left_out and source_of(row) in weak else row.labels.get(dimension.name) for row in rows]
        known, allowed = measures.encode_truth(labels, dimension)
        truths.append(Truth(dimension, places[known], allowed))
    return truths


def answered(truth: Truth, answers: Answers) -> tuple[Bools, Indices, Floats | None]:
    """What is admitted, answered and given as probabilities, for the known rows with an answer."""
    name = truth.dimension.name
    indices = answers.indices[name][truth.places]
    has = indices != NO_ANSWER
    p = answers.p[name][truth.places][has] if name in answers.p else None
    return truth.allowed[has], indices[has], p


def measure_part(rows: Sequence[Row], places: Indices, item: Answers, weak: set[str], times: int) -> dict[str, Any]:
    truths = list_truths(rows, places, weak)
    risk = next(truth for truth in truths if truth.dimension.name == "risk")
    line = risk.dimension.index(RISKY)
    allowed, indices, _ = answered(risk, item)
    return {
        "unscored": int((item.indices["risk"][places] == NO_ANSWER).sum()),
        "dimensions": {truth.dimension.name: measure_dimension(truth, item, times) for truth in truths},
        "missed_risk": measures.missed_risk(allowed, indices, line).as_dict(),
        "false_alarm": measures.false_alarm(allowed, indices, line).as_dict(),
        "auroc": measure_ranking(rows, places, item),
    }


def measure_dimension(truth: Truth, item: Answers, times: int) -> dict[str, Any]:
    """ECE, Brier and NLL count rows with one true value; accuracy, F1 and the selective area also sets of values."""
    allowed, indices, p = answered(truth, item)
    right = measures.is_right(allowed, indices)
    figures: dict[str, Any] = {
        "rows": len(indices),
        "accuracy": Rate(int(right.sum()), len(right)).as_dict(),
        "macro_f1": measures.estimate_f1(allowed, indices, times=times).as_dict(),
    }
    if p is None:
        return figures | dict.fromkeys(("ece", "brier", "nll", "selective_area"))
    confidence = own_confidence(p, indices)
    single = allowed.sum(1) == 1
    curve = measures.selective_curve(confidence, right)
    return figures | {
        "ece": _round(measures.expected_calibration_error(confidence[single], right[single])),
        "brier": _round(measures.brier(p[single], allowed[single].argmax(1))),
        "nll": _round(measures.negative_log_likelihood(p[single], allowed[single].argmax(1))),
        "selective_area": _round(curve.area),
    }


def own_confidence(p: Floats, indices: Indices) -> Floats:
    """The probability of the answer that was given."""
    own: Floats = p[np.arange(len(indices)), indices]
    return own


def risk_curve(truths: Sequence[Truth], item: Answers) -> dict[str, Any] | None:
    """Accuracy of the risk label over coverage; None for a configuration without probabilities or rows."""
    risk = next(truth for truth in truths if truth.dimension.name == "risk")
    allowed, indices, p = answered(risk, item)
    if p is None or not len(indices):
        return None
    curve = measures.selective_curve(own_confidence(p, indices), measures.is_right(allowed, indices))
    return {
        "points": curve.thin(CURVE_POINTS),
        "coverage_at": {f"{target:g}": _round(curve.coverage_at(target)) for target in TARGETS},
    }


def measure_ranking(rows: Sequence[Row], places: Indices, item: Answers) -> dict[str, Any] | None:
    """AUROC of P(risk >= medium); a row is positive where its label admits medium or high. Weak sources count."""
    risk = load_schema()["risk"]
    known, allowed = measures.encode_truth([row.labels.get("risk") for row in rows], risk)
    if "risk" not in item.p or not len(known):
        return None
    p = item.p["risk"][places[known]]
    has = p.sum(1) > 0
    line = risk.index(RISKY)
    positive = allowed[has][:, line:].any(1)
    found = measures.auroc(p[has][:, line:].sum(1), positive)
    return {"value": _round(found), "positives": int(positive.sum()), "negatives": int((~positive).sum())}


def compare_all(
    truths: Sequence[Truth], by_name: Mapping[str, Answers], compared: Compared, times: int
) -> dict[str, Any]:
    hybrid, singles = by_name[compared.hybrid], [by_name[name] for name in compared.singles]
    baseline = by_name.get(compared.baseline)
    return {
        "hybrid_minus_best": {truth.dimension.name: compare_best(truth, hybrid, singles, times) for truth in truths},
        "against_bag_of_words": {
            name: {truth.dimension.name: compare_two(truth, item, baseline, times) for truth in truths}
            for name, item in by_name.items()
            if name != compared.baseline
        }
        if baseline is not None
        else None,
    }


def compare_best(truth: Truth, hybrid: Answers, singles: Sequence[Answers], times: int) -> dict[str, Any]:
    """Macro-F1 of the hybrid minus that of the best single arm, paired. `holds`: not below it within the interval."""
    best = max(singles, key=lambda item: _plain_f1(truth, item))
    gain = estimate_gain(truth, hybrid, best, times)
    return gain.as_dict() | {"best": best.name, "holds": gain.high is None or gain.high >= 0}


def compare_two(truth: Truth, item: Answers, baseline: Answers, times: int) -> dict[str, Any]:
    gain = estimate_gain(truth, item, baseline, times)
    if gain.low is None or gain.high is None:
        return gain.as_dict() | {"verdict": None}
    verdict = BETTER if gain.low > 0 else WORSE if gain.high < 0 else UNCLEAR
    return gain.as_dict() | {"verdict": verdict}


def estimate_gain(truth: Truth, ours: Answers, theirs: Answers, times: int) -> Estimate:
    """On the known rows that both have answered."""
    name = truth.dimension.name
    first, second = ours.indices[name][truth.places], theirs.indices[name][truth.places]
    has = (first != NO_ANSWER) & (second != NO_ANSWER)
    return measures.estimate_f1_gain(truth.allowed[has], first[has], second[has], times=times)


def _plain_f1(truth: Truth, item: Answers) -> float:
    allowed, indices, _ = answered(truth, item)
    if not len(indices):
        return 0.0
    return float(measures.f1_statistic(allowed, indices)(np.ones((1, len(indices))))[0])


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
