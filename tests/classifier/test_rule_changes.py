"""What other rules would make of a text."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from classifier.hybrid import Calibration
from classifier.rule_changes import Blend, Change, compare
from classifier.rules import RuleSet
from classifier.schema import load_schema
from classifier.types import ArmScores

SCHEMA = load_schema()
SAFE = '{ emotion = "positive", sentiment = "positive", stress = "low", risk = "none" }'
NONE = "[[rule]]\nid = 'other'\nkind = 'hint'\nliterals = ['nothing here']\n"
MEDIUM = "[[rule]]\nid = 'b'\nkind = 'block'\nfloor = 'medium'\nliterals = ['blockword']\n"
HINT = "[[rule]]\nid = 'h'\nkind = 'hint'\nliterals = ['blockword']\n"
ALLOW = (
    f"[[rule]]\nid = 'a'\nkind = 'allow'\nliterals = ['blockword']\nlabels = {SAFE}\nbuiltin = true\nrationale = 't'\n"
)


def rules(text: str) -> RuleSet:
    return RuleSet({"own.toml": tomllib.loads(text)})


def scores(arm: str = "bert", risk: str = "low") -> ArmScores:
    best = {"emotion": "stress", "sentiment": "negative", "stress": "high", "risk": risk}
    rows = {
        item.name: {name: 0.97 if name == best[item.name] else 0.03 / (len(item.names) - 1) for name in item.names}
        for item in SCHEMA.dimensions
    }
    return ArmScores(arm, rows, 1.0)  # type: ignore[arg-type]


def change(before: str, after: str, arms: tuple[ArmScores, ...] = (), *, has_llm: bool = False) -> Change | None:
    blend = Blend(Calibration.identity(SCHEMA), "cascade", has_llm=has_llm)
    return compare("Blockword!", rules(before), rules(after), arms=arms, blend=blend)


def test_rules_that_say_the_same_change_nothing() -> None:
    assert change(MEDIUM, MEDIUM + NONE) is None


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (NONE, MEDIUM, ("floor_raised", "evidence_gained")),
        (MEDIUM, NONE, ("floor_lowered", "evidence_lost")),
        (MEDIUM, MEDIUM.replace("medium", "high"), ("floor_raised",)),
        (NONE, ALLOW, ("forced", "evidence_gained")),
        (ALLOW, HINT, ("freed", "evidence_gained", "evidence_lost")),
        (NONE, HINT, ("evidence_gained",)),
    ],
)
def test_kinds_of_change(before: str, after: str, kinds: tuple[str, ...]) -> None:
    found = change(before, after)
    assert found is not None
    assert found.kinds == kinds
    assert found.before.labels == found.after.labels == {}


def test_the_decision_is_made_anew_from_the_arms_scores() -> None:
    found = change(NONE, MEDIUM, (scores(),))
    assert found is not None
    assert (found.before.labels["risk"], found.after.labels["risk"]) == ("low", "medium")
    assert "label_changed" in found.kinds


def test_a_floor_below_what_the_arms_say_changes_no_label() -> None:
    found = change(NONE, MEDIUM, (scores(risk="high"),))
    assert found is not None
    assert found.before.labels == found.after.labels
    assert "label_changed" not in found.kinds


@pytest.mark.parametrize(
    ("has_llm", "arms", "asks"),
    [
        (True, (scores(),), True),
        (False, (scores(),), False),
        (True, (scores(), scores("llm")), False),
    ],
)
def test_says_where_the_llm_would_be_asked(has_llm: bool, arms: tuple[ArmScores, ...], asks: bool) -> None:
    found = change(NONE, HINT, arms, has_llm=has_llm)
    assert found is not None
    assert ("asks_llm" in found.kinds) is asks


def test_a_withheld_answer_has_no_label() -> None:
    from classifier.hybrid import Abstain

    calibration = replace(Calibration.identity(SCHEMA), abstain=Abstain(target=0.99, limit=0.99, coverage=0.5))
    found = compare(
        "blockword",
        rules(NONE),
        rules(MEDIUM),
        arms=(scores(),),
        blend=Blend(calibration, "weighted", has_llm=False),
    )
    assert found is not None
    assert (dict(found.before.labels), found.after.labels["risk"]) == ({}, "medium")
