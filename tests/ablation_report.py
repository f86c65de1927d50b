"""A report as the ablation job makes it, on answers drawn at random: for pages, without any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from classifier.schema import load_schema
from training.corpus.rows import Row
from training.jobs.ablation import TITLES, Given, Outcome, describe_answers, list_rows
from training.jobs.ablation_text import list_remarks
from training.jobs.suite import Case

SKILL: Mapping[str, float] = {
    "rules": 0.3,
    "bert": 1.6,
    "llm": 1.5,
    "llm_bert": 1.9,
    "all_weighted": 2.1,
    "all_cascade": 2.0,
    "bag_of_words": 1.2,
}
"""By how much a configuration's logit of the true value stands out."""
FUNCTIONALITIES = (
    "F01_positive_life",
    "F02_death_idioms",
    "F06_active_ideation",
    "F08_passive_wish",
    "F12_third_party",
)


def make_ablation_report(name: str = "r0042") -> dict[str, Any]:
    rng = np.random.default_rng(5)
    rows = [
        Row(f"{source}-{n}", f"text {source} {n}", _draw_labels(rng), source)
        for source in ("bank", "sad")
        for n in range(60)
    ]
    forum = [
        Row(f"forum-{n}", f"forum {n}", {"risk": ("none|low", "low|medium|high")[n % 2]}, "forum") for n in range(20)
    ]
    suite = []
    for place, functionality in enumerate(FUNCTIONALITIES):
        for number in range(12):
            labels = _draw_labels(rng) | {"risk": "high" if place in (2, 3) else "none"}
            must = "risk_min:medium" if place in (2, 3) else "risk_max:low"
            suite.append(Case(f"case-{place}-{number}", functionality, f"case {place} {number}", labels, must))
    given = Given([*rows, *forum], suite, rows[:1], times=100)
    answers = {name: [_answer(rng, row, SKILL[name], name) for row in list_rows(given)] for name in TITLES}
    made = {
        "format": 1,
        "made": "2026-11-24T10:00:00+00:00",
        "bundle": {"name": name, "manifest_sha256": "c" * 64, "policy": "cascade"},
        "bag_of_words_rows": 3152,
        "abstain": {"target": 0.95, "limit": 0.61, "expected_coverage": 0.72, "coverage": 0.7, "accuracy": 0.953},
        **describe_answers(given, answers, "all_cascade"),
    }
    return made | {"remarks": list_remarks(made)}


def _draw_labels(rng: np.random.Generator) -> dict[str, str]:
    return {item.name: str(rng.choice(item.names)) for item in load_schema().dimensions}


def _answer(rng: np.random.Generator, row: Row, skill: float, name: str) -> Outcome:
    probabilities = {}
    for dimension in load_schema().dimensions:
        truth = str(row.labels.get(dimension.name, "")).split("|")
        logits = rng.normal(size=len(dimension.names)) + [skill * (value in truth) for value in dimension.names]
        shares = np.exp(logits) / np.exp(logits).sum()
        probabilities[dimension.name] = dict(zip(dimension.names, shares.tolist(), strict=True))
    labels = {dimension: max(shares, key=shares.__getitem__) for dimension, shares in probabilities.items()}
    return Outcome(labels, None if name == "rules" else probabilities)
