"""The tables of a snapshot's page, from its manifest. What an older manifest does not have makes no table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback import ml
from feedback.models.labels import SCHEMA

SPLITS = ("train", "val", "test")
LONG = 24
"""Tables with more rows are folded."""
SOURCES = {"bank": "corpus", "golden": "the five statements"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """As `feedback/_figures.html` shows it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    @property
    def is_long(self) -> bool:
        return len(self.rows) > LONG


def list_tables(manifest: Mapping[str, Any]) -> list[Sheet]:
    sheets = [
        Sheet("What is left out, and why", ("what", "number"), list_left_out(manifest)),
        Sheet("Sources", ("source", *SPLITS), _per_split(manifest.get("sources", {})), "Rows in each split."),
        Sheet("Labels that people gave", ("label", "rows"), _given(manifest.get("feedback_labels", {}))),
        Sheet(
            "Annotators",
            ("pseudonym", "verdicts", "texts", "share of the feedback", "trust", "shared votes", "cut to"),
            [_person(name, row) for name, row in manifest.get("people", {}).items()],
            f"Trust: {manifest.get('weights', 'not known')}.",
        ),
        Sheet("All labels", ("label", *SPLITS), _labels(manifest.get("labels", {})), "The corpus included."),
    ]
    return [sheet for sheet in sheets if sheet.rows or sheet.title.startswith("What")]


def list_left_out(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(ml.REASONS.get(reason, reason), count) for reason, count in manifest.get("left_out", {}).items()]


def _per_split(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[Any, ...]]:
    names = dict.fromkeys(name for split in SPLITS for name in counts.get(split, {}))
    return [(SOURCES.get(name, name), *(counts.get(split, {}).get(name, 0) for split in SPLITS)) for name in names]


def _given(labels: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int]]:
    return [
        (f"{dimension}: {_say(value)}", count)
        for dimension, row in labels.items()
        for value, count in sorted(row.items(), key=lambda item: _rank(dimension, item[0]))
    ]


def _rank(dimension: str, value: str) -> tuple[int, str]:
    """In order of severity; sets and soft labels last."""
    names = SCHEMA[dimension].names
    return (names.index(value), "") if value in names else (len(names), value)


def _labels(labels: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[tuple[Any, ...]]:
    flat = {split: dict(_given(by_dimension)) for split, by_dimension in labels.items()}
    return _per_split(flat)


def _say(value: str) -> str:
    return value.replace("_", " ")


def _person(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    shown = "imported, authors unknown" if name == "import" else name
    cut = "–" if row["capped_to"] == 1 else f"{row['capped_to']:.0%}"
    trust = f"{row['trust']:.0%}"
    return shown, row["verdicts"], row["texts"], f"{row['share']:.1%}", trust, row["shared_votes"], cut


def list_changes(differences: Sequence[ml.Difference]) -> Sheet:
    rows = [
        (
            f"{item.group.replace('_', ' ')}: {_say(item.name)}".removesuffix(": "),
            _value(item.before),
            _value(item.after),
        )
        for item in differences
    ]
    return Sheet("What differs", ("what", "before", "now"), rows)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)
