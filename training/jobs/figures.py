"""Figures of answers against known labels: pure, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from classifier.schema import Dimension, Schema
from training.corpus.rows import Label, likeliest

RISKY = "medium"
"""From this risk on a person should look: the line that missed risk and false alarms are counted at."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `total`; `share` is None where there is nothing to count."""

    hits: int
    total: int

    @property
    def share(self) -> float | None:
        return self.hits / self.total if self.total else None

    def as_dict(self) -> dict[str, float | int | None]:
        return {"hits": self.hits, "total": self.total, "share": self.share}


def accuracy(truth: Sequence[str], answers: Sequence[str]) -> Rate:
    return Rate(sum(a == b for a, b in zip(truth, answers, strict=True)), len(truth))


def macro_f1(truth: Sequence[str], answers: Sequence[str]) -> float | None:
    """Mean F1 over the values that occur in the truth; None for no rows."""
    scores = []
    for value in sorted(set(truth)):
        hit = sum(a == b == value for a, b in zip(truth, answers, strict=True))
        scores.append(2 * hit / (truth.count(value) + answers.count(value)))
    return sum(scores) / len(scores) if scores else None


def missed_risk(truth: Sequence[str], answers: Sequence[str], risk: Dimension) -> Rate:
    """Of the texts whose risk is medium or high: those answered none or low."""
    line = risk.index(RISKY)
    risky = [answer for true, answer in zip(truth, answers, strict=True) if risk.index(true) >= line]
    return Rate(sum(risk.index(answer) < line for answer in risky), len(risky))


def false_alarm(truth: Sequence[str], answers: Sequence[str], risk: Dimension) -> Rate:
    """Of the texts whose risk is none or low: those answered medium or high."""
    line = risk.index(RISKY)
    safe = [answer for true, answer in zip(truth, answers, strict=True) if risk.index(true) < line]
    return Rate(sum(risk.index(answer) >= line for answer in safe), len(safe))


def score_labels(
    truths: Sequence[Mapping[str, Label]], answers: Sequence[Mapping[str, str]], schema: Schema
) -> dict[str, object]:
    """Per dimension accuracy, macro-F1 and rows; missed risk and false alarms. Counts slots with one true value."""
    figures: dict[str, object] = {}
    for dimension in schema.dimensions:
        known = [
            (true, answer[dimension.name])
            for labels, answer in zip(truths, answers, strict=True)
            if (true := likeliest(labels.get(dimension.name))) is not None and dimension.name in answer
        ]
        truth, given = [true for true, _ in known], [answer for _, answer in known]
        figures[dimension.name] = {
            "accuracy": accuracy(truth, given).share,
            "macro_f1": macro_f1(truth, given),
            "rows": len(known),
        }
        if dimension.name == "risk":
            figures["missed_risk"] = missed_risk(truth, given, dimension).as_dict()
            figures["false_alarm"] = false_alarm(truth, given, dimension).as_dict()
    return figures
