"""A prediction as people see it: four rows of chips with probabilities and votes, and the text with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feedback.ml import TRIAL, Dimension
from feedback.models import Annotation, Document, Prediction
from feedback.models.labels import SCHEMA

ARM_NAMES: Mapping[str, str] = {"bert": "BERT", "llm": "LLM", "rules": "rules"}


@dataclass(frozen=True, slots=True)
class Vote:
    arm: str

    @property
    def name(self) -> str:
        return ARM_NAMES[self.arm]

    @property
    def mark(self) -> str:
        return self.name[0].upper()


@dataclass(frozen=True, slots=True)
class Chip:
    value: str
    key: str
    description: str
    percent: int | None
    """None where there is no prediction."""
    is_judged: bool
    """The model's choice."""
    is_chosen: bool
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class ChipRow:
    dimension: Dimension
    chips: tuple[Chip, ...]

    @property
    def judged(self) -> str:
        return next((chip.value for chip in self.chips if chip.is_judged), "")


@dataclass(frozen=True, slots=True)
class Card:
    document: Document
    prediction: Prediction | None
    rows: tuple[ChipRow, ...]
    earlier: Annotation | None
    """The answer that was just undone: its labels are preset."""


def make_card(document: Document, *, earlier: Annotation | None = None) -> Card:
    prediction = document.prediction
    chosen = earlier.labels if earlier else {}
    return Card(document, prediction, build_rows(prediction, chosen), earlier)


def build_rows(prediction: Prediction | None, chosen: Mapping[str, str] | None = None) -> tuple[ChipRow, ...]:
    """One row a dimension. `chosen` overrides the model's choice where it names a dimension."""
    return tuple(
        _build_row(dimension, prediction, (chosen or {}).get(dimension.name)) for dimension in SCHEMA.dimensions
    )


def _build_row(dimension: Dimension, prediction: Prediction | None, chosen: str | None) -> ChipRow:
    judged = prediction.labels.get(dimension.name) if prediction else None
    probabilities = prediction.probabilities.get(dimension.name, {}) if prediction else {}
    votes = list_votes(prediction, dimension) if prediction else {}
    chips = tuple(
        Chip(
            value=value.name,
            key=value.key,
            description=value.description,
            percent=round(100 * probabilities[value.name]) if value.name in probabilities else None,
            is_judged=value.name == judged,
            is_chosen=value.name == (chosen or judged),
            votes=votes.get(value.name, ()),
        )
        for value in dimension.values
    )
    return ChipRow(dimension, chips)


def list_votes(prediction: Prediction, dimension: Dimension) -> dict[str, tuple[Vote, ...]]:
    """Value -> who would have chosen it alone."""
    votes: dict[str, tuple[Vote, ...]] = {}
    for arm in prediction.arms:
        row = arm["probabilities"].get(dimension.name, {})
        if row:
            best = max(row, key=row.__getitem__)
            votes[best] = (*votes.get(best, ()), Vote(arm["arm"]))
    by_rules = _rules_choice(prediction, dimension)
    if by_rules:
        votes[by_rules] = (*votes.get(by_rules, ()), Vote("rules"))
    return votes


def _rules_choice(prediction: Prediction, dimension: Dimension) -> str:
    """The value the rules insist on; empty where they are silent."""
    if prediction.risk_floor:
        return prediction.risk_floor if dimension.name == "risk" else ""
    if not any(item["kind"] == "allow" and item["scope"] != TRIAL for item in prediction.evidence):
        return ""
    # An allow rule that was followed leaves all the mass on its value.
    row = prediction.probabilities.get(dimension.name, {})
    return next((value for value, share in row.items() if share == 1.0), "")


def describe_change(annotation: Annotation) -> str:
    """What a correction changed: `risk low → medium`; empty when nothing did."""
    judged, labels = annotation.judged_labels, annotation.labels
    changed = [
        f"{name} {judged.get(name, '?')} → {labels[name]}"
        for name in SCHEMA.names
        if name in labels and labels[name] != judged.get(name)
    ]
    return ", ".join(changed).replace("_", " ") if annotation.verdict == Annotation.Verdict.CORRECTED else ""
