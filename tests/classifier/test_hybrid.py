"""Calibration, blend, thresholds and precedence, against numbers worked out by hand."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from classifier.errors import BundleError
from classifier.hybrid import (
    Calibration,
    Cascade,
    blend,
    calibrate,
    decide_labels,
    is_usable,
    needs_llm,
    risk_label,
)
from classifier.rules.engine import RuleVerdict
from classifier.schema import load_schema
from classifier.types import ArmScores, Evidence

SCHEMA = load_schema()
IDENTITY = Calibration.identity(SCHEMA)
RISK = SCHEMA["risk"]
SAFE_LABELS = {"emotion": "positive", "sentiment": "positive", "stress": "low", "risk": "none"}


def make_scores(arm: str = "bert", **rows: list[float]) -> ArmScores:
    """A sure, harmless answer but for the given rows, which stand in schema order."""
    calm = {
        "emotion": [0.0, 0.96, 0.01, 0.01, 0.01, 0.01],
        "sentiment": [0.01, 0.98, 0.01],
        "stress": [0.98, 0.01, 0.01],
        "risk": [0.97, 0.01, 0.01, 0.01],
    } | rows
    table = {item.name: dict(zip(item.names, calm[item.name], strict=True)) for item in SCHEMA.dimensions}
    return ArmScores(arm, table, 1.0)  # type: ignore[arg-type]


def make_evidence(kind: str, scope: str = "plain") -> Evidence:
    return Evidence("rule", kind, 0, 3, scope)  # type: ignore[arg-type]


def values(row: Mapping[str, float]) -> list[float]:
    return [round(p, 6) for p in row.values()]


def test_temperature_two_takes_the_square_root() -> None:
    calibration = replace(IDENTITY, temperature={"bert": dict.fromkeys(SCHEMA.names, 2.0), "llm": {}})
    row = calibrate(make_scores(stress=[0.64, 0.32, 0.04]), calibration, SCHEMA)["stress"]
    # sqrt: 0.8, 0.565685, 0.2; sum 1.565685
    assert values(row) == [0.510958, 0.361302, 0.127740]


def test_blend_is_the_weighted_geometric_mean() -> None:
    arms = {"bert": make_scores(stress=[0.64, 0.16, 0.20]), "llm": make_scores("llm", stress=[0.04, 0.64, 0.32])}
    # Half and half: square roots of the products, 0.16, 0.32, 0.252982; sum 0.732982
    assert values(blend(arms, IDENTITY, SCHEMA)["stress"]) == [0.218286, 0.436573, 0.345141]


def test_weight_one_is_that_arm_alone() -> None:
    calibration = replace(IDENTITY, weight={name: {"bert": 0.0, "llm": 1.0} for name in SCHEMA.names})
    arms = {"bert": make_scores(stress=[0.5, 0.25, 0.25]), "llm": make_scores("llm", stress=[0.1, 0.8, 0.1])}
    assert values(blend(arms, calibration, SCHEMA)["stress"]) == [0.1, 0.8, 0.1]


def test_missing_arm_leaves_the_other_whatever_the_weights() -> None:
    calibration = replace(IDENTITY, weight={name: {"bert": 0.0, "llm": 1.0} for name in SCHEMA.names})
    outcome = decide_labels({"bert": make_scores(stress=[0.2, 0.7, 0.1])}, RuleVerdict(), calibration, SCHEMA)
    assert values(outcome.probabilities["stress"]) == [0.2, 0.7, 0.1]
    assert outcome.labels["stress"] == "medium"


def test_no_arm_gives_no_labels() -> None:
    assert decide_labels({}, RuleVerdict(risk_floor="high"), IDENTITY, SCHEMA).labels == {}


@pytest.mark.parametrize("bad", [[math.nan, 0.5, 0.5], [math.inf, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.5, 1.0, 0.5]])
def test_scores_that_are_no_probabilities_are_unusable(bad: list[float]) -> None:
    assert is_usable(make_scores(), SCHEMA)
    assert not is_usable(make_scores(stress=bad), SCHEMA)
    assert not is_usable(None, SCHEMA)


def test_a_zero_probability_does_not_break_the_blend() -> None:
    arms = {"bert": make_scores(stress=[1.0, 0.0, 0.0]), "llm": make_scores("llm", stress=[0.0, 1.0, 0.0])}
    assert values(blend(arms, IDENTITY, SCHEMA)["stress"]) == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ([0.60, 0.10, 0.05, 0.25], "high"),
        ([0.60, 0.10, 0.20, 0.10], "medium"),
        ([0.30, 0.50, 0.10, 0.10], "low"),
        ([0.50, 0.30, 0.10, 0.10], "none"),
    ],
)
def test_risk_follows_thresholds_not_argmax(row: list[float], label: str) -> None:
    named = dict(zip(RISK.names, row, strict=True))
    assert risk_label(named, RISK, {"medium": 0.3, "high": 0.25}) == label


def test_floor_moves_the_mass_below_it() -> None:
    arms = {"bert": make_scores(risk=[0.7, 0.1, 0.08, 0.12])}
    outcome = decide_labels(arms, RuleVerdict(risk_floor="medium"), IDENTITY, SCHEMA)
    assert outcome.labels["risk"] == "medium"
    assert values(outcome.probabilities["risk"]) == [0.0, 0.0, 0.88, 0.12]


def test_high_floor_with_its_emotion_decides_both() -> None:
    verdict = RuleVerdict(risk_floor="high", emotion="self_harm_high")
    outcome = decide_labels({"bert": make_scores()}, verdict, IDENTITY, SCHEMA)
    assert (outcome.labels["risk"], outcome.labels["emotion"]) == ("high", "self_harm_high")
    assert outcome.probabilities["risk"]["high"] == pytest.approx(1)
    assert outcome.labels["stress"] == "low"


def test_floor_never_lowers() -> None:
    arms = {"bert": make_scores(risk=[0.1, 0.1, 0.1, 0.7], emotion=[0, 0, 0.1, 0.1, 0.1, 0.7])}
    outcome = decide_labels(arms, RuleVerdict(risk_floor="medium", emotion="stress"), IDENTITY, SCHEMA)
    assert (outcome.labels["risk"], outcome.labels["emotion"]) == ("high", "self_harm_high")


def test_under_a_floor_the_label_is_the_likeliest_value() -> None:
    calibration = replace(IDENTITY, risk_thresholds={"medium": 0.5, "high": 0.1})
    arms = {"bert": make_scores(risk=[0.6, 0.1, 0.15, 0.15])}
    outcome = decide_labels(arms, RuleVerdict(risk_floor="medium"), calibration, SCHEMA)
    assert outcome.labels["risk"] == "high"
    assert max(outcome.probabilities["risk"], key=outcome.probabilities["risk"].__getitem__) == "high"


def test_allow_rule_forces_its_labels() -> None:
    verdict = RuleVerdict(evidence=(make_evidence("allow"),), forced=SAFE_LABELS)
    outcome = decide_labels({"bert": make_scores(risk=[0.1, 0.2, 0.3, 0.4])}, verdict, IDENTITY, SCHEMA)
    assert outcome.labels == SAFE_LABELS
    assert outcome.probabilities["risk"] == {"none": 1.0, "low": 0.0, "medium": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    "verdict",
    [
        RuleVerdict(evidence=(make_evidence("block", "negated"),), forced=SAFE_LABELS),
        RuleVerdict(risk_floor="medium", forced=SAFE_LABELS),
    ],
)
def test_block_evidence_silences_an_allow_rule(verdict: RuleVerdict) -> None:
    outcome = decide_labels({"bert": make_scores(risk=[0.1, 0.2, 0.6, 0.1])}, verdict, IDENTITY, SCHEMA)
    assert outcome.labels["risk"] == "medium"
    assert outcome.labels["emotion"] == "neutral"


def test_weighted_policy_always_asks_the_llm() -> None:
    assert needs_llm(make_scores(), RuleVerdict(), IDENTITY, "weighted", SCHEMA)


@pytest.mark.parametrize(
    ("bert", "verdict", "asked"),
    [
        (make_scores(), RuleVerdict(), False),
        (None, RuleVerdict(), True),
        (make_scores(sentiment=[0.2, 0.7, 0.1]), RuleVerdict(), True),
        (make_scores(risk=[0.92, 0.0, 0.04, 0.04]), RuleVerdict(), False),
        (make_scores(risk=[0.90, 0.0, 0.06, 0.04]), RuleVerdict(), True),
        (make_scores(), RuleVerdict(evidence=(make_evidence("hint"),)), True),
        (make_scores(), RuleVerdict(evidence=(make_evidence("block", "idiom"),)), True),
        (make_scores(), RuleVerdict(evidence=(make_evidence("allow"),), forced=SAFE_LABELS), False),
        (make_scores(risk=[math.nan, 0, 0, 0]), RuleVerdict(), True),
    ],
)
def test_cascade_asks_when_unsure_or_while_the_risk_is_open(
    bert: ArmScores | None, verdict: RuleVerdict, asked: bool
) -> None:
    assert needs_llm(bert, verdict, IDENTITY, "cascade", SCHEMA) is asked


def test_calibration_round_trips() -> None:
    calibration = replace(IDENTITY, cascade=Cascade.uniform(SCHEMA, 0.8, risk_hint=0.05, risk_sure=0.7))
    assert Calibration.from_json(calibration.to_json(), SCHEMA) == calibration


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"risk_hint": 0.1', '"risk_hint": 1.5', "risk_hint must be between 0 and 1"),
        ('"risk_sure": 1.0', '"risk_sure": -1', "risk_sure must be between 0 and 1"),
        ('"sadness": 0.9', '"sadness": 9', "confidence.emotion.sadness must be between 0 and 1"),
        ('"sadness": 0.9', '"grief": 0.9', "lacks 'sadness'"),
        ('"high": 0.5', '"high": "x"', "malformed"),
        ('"cascade"', '"casc"', "lacks 'cascade'"),
        ('"emotion": 1.0', '"emotion": 0', "temperature.bert.emotion"),
        ('"llm": 0.5', '"llm": 0.6', "weight.emotion"),
        ("{", "[", "malformed"),
    ],
)
def test_rejects_a_calibration_out_of_range(old: str, new: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Calibration.from_json(IDENTITY.to_json().replace(old, new, 1), SCHEMA)
