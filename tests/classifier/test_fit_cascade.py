"""Where the cascade asks, on rows made so that the right limits are known."""

from dataclasses import replace

import numpy as np
import pytest

from classifier.fit_cascade import Comparison, Limits, compare, fit_cascade, try_step
from classifier.hybrid import Calibration, needs_llm
from classifier.rules.engine import RuleVerdict
from classifier.schema import load_schema
from classifier.types import ArmScores

SCHEMA = load_schema()
IDENTITY = Calibration.identity(SCHEMA)
RISK = SCHEMA["risk"]


def spread(names: tuple[str, ...], peak: int, p: float) -> dict[str, float]:
    return {name: p if index == peak else (1 - p) / (len(names) - 1) for index, name in enumerate(names)}


def make_scores(arm: str, place: int, p: float, **other: tuple[int, float]) -> ArmScores:
    """Every dimension on its value number `place` with probability `p`, or as `other` says."""
    rows = {}
    for dimension in SCHEMA.dimensions:
        peak, share = other.get(dimension.name, (place, p))
        rows[dimension.name] = spread(dimension.names, peak, share)
    return ArmScores(arm, rows, 1.0)  # type: ignore[arg-type]


def fit(rows: list[dict[str, ArmScores]], calibration: Calibration = IDENTITY) -> Calibration:
    return replace(calibration, cascade=fit_cascade(rows, calibration, SCHEMA, RISK.cost))


def asks(calibration: Calibration, bert: ArmScores) -> bool:
    return needs_llm(bert, RuleVerdict(), calibration, "cascade", SCHEMA)


SURE = make_scores("bert", 0, 0.95)
UNSURE = make_scores("bert", 0, 0.95, stress=(0, 0.5))
AGREES = make_scores("llm", 0, 0.9)
CORRECTS = make_scores("llm", 0, 0.9, stress=(2, 0.97))


def test_it_asks_where_the_llm_corrects_and_nowhere_else() -> None:
    rows = [{"bert": SURE, "llm": AGREES}] * 60 + [{"bert": UNSURE, "llm": CORRECTS}] * 40
    fitted = fit(rows)
    assert asks(fitted, UNSURE)
    assert not asks(fitted, SURE)
    # As unsure, but of an answer that the LLM has never changed.
    assert not asks(fitted, make_scores("bert", 0, 0.95, stress=(1, 0.5)))


def test_an_arm_without_weight_is_never_asked() -> None:
    alone = replace(IDENTITY, weight={name: {"bert": 1.0, "llm": 0.0} for name in SCHEMA.names})
    rows = [{"bert": SURE, "llm": AGREES}] * 60 + [{"bert": UNSURE, "llm": CORRECTS}] * 40
    assert not asks(fit(rows, alone), UNSURE)


def test_a_risk_that_the_llm_sees_and_bert_does_not_is_asked_about() -> None:
    calm = make_scores("bert", 0, 0.95, risk=(0, 0.7))
    warns = make_scores("llm", 0, 0.9, risk=(3, 0.99))
    rows = [{"bert": SURE, "llm": AGREES}] * 60 + [{"bert": calm, "llm": warns}] * 20
    fitted = fit(rows)
    assert asks(fitted, calm)
    assert not asks(fitted, SURE)


def test_rows_without_both_arms_are_left_out_and_few_rows_fit_nothing() -> None:
    rows = [{"bert": SURE, "llm": AGREES}] * 60 + [{"bert": UNSURE, "llm": CORRECTS}] * 40
    assert fit(rows + [{"bert": UNSURE}] * 50) == fit(rows)
    assert fit(rows[50:69]) == IDENTITY


def test_the_loss_of_a_label_is_what_the_blend_expects_it_to_lose() -> None:
    bert = [{name: spread(SCHEMA[name].names, 0, 0.6) for name in SCHEMA.names}]
    both = [{name: spread(SCHEMA[name].names, 1, 0.7) for name in SCHEMA.names}]
    stress = compare("stress", bert, both, IDENTITY, SCHEMA, None)
    # Of three values: the blend's own answer has 0.7, BERT's 0.15.
    assert stress.loss[0] == pytest.approx(0.55)
    assert stress.allowed == pytest.approx(0.005)
    both[0]["risk"] = {"none": 0.1, "low": 0.1, "medium": 0.2, "high": 0.6}
    bert[0]["risk"] = {"none": 0.7, "low": 0.2, "medium": 0.1, "high": 0.0}
    cost = {
        "none": {"low": 1, "medium": 2, "high": 3},
        "low": {"none": 1, "medium": 1, "high": 2},
        "medium": {"none": 5, "low": 4, "high": 1},
        "high": {"none": 10, "low": 9, "medium": 4},
    }
    risk = compare("risk", bert, both, IDENTITY, SCHEMA, cost)
    # none: .1*1 + .2*5 + .6*10 = 7.1; high: .1*3 + .1*2 + .2*1 = .7.
    assert risk.loss[0] == pytest.approx(7.1 - 0.7)
    assert risk.allowed == pytest.approx(0.01 * 0.7)


def test_a_step_that_would_lose_too_much_is_undone() -> None:
    answer, p_risky = np.array([0, 0]), np.array([0.0, 0.0])
    compared = {"stress": Comparison(answer, p=np.array([0.9, 0.5]), loss=np.array([0.0, 0.3]), allowed=0.1)}
    limits = Limits(confidence={("stress", 0): 0.51}, hint=0.4, sure=0.6)
    assert not try_step(limits, ("stress", 0), compared, p_risky)
    assert limits.confidence["stress", 0] == 0.51
    cheap = {"stress": replace(compared["stress"], loss=np.array([0.0, 0.1]))}
    assert try_step(limits, ("stress", 0), cheap, p_risky)
    assert limits.confidence["stress", 0] == pytest.approx(0.49)


def test_a_limit_past_its_end_is_not_moved() -> None:
    free = {"stress": Comparison(np.array([0]), p=np.array([0.9]), loss=np.array([0.0]), allowed=1.0)}
    limits = Limits(confidence={("stress", 0): 0.51}, hint=0.495, sure=0.6)
    assert not try_step(limits, "hint", free, np.array([0.0]))
    assert limits.hint == 0.495
