"""What is fitted on hand-made rows is what the rows were made from."""

import numpy as np
import pytest

from classifier.calibrate import (
    Sample,
    fit_calibration,
    fit_risk_thresholds,
    fit_temperature,
    fit_weight,
    log_softmax,
    nll,
)
from classifier.schema import load_schema
from classifier.types import ArmScores

SCHEMA = load_schema()
RISK = SCHEMA["risk"]


def make_cost(*, alarm: float, miss: float) -> dict[str, dict[str, float]]:
    """Two true values matter here, none and high; each has one cost for every wrong answer."""
    costs = {"none": alarm, "low": 0.0, "medium": 0.0, "high": miss}
    return {true: {answered: cost * (answered != true) for answered in RISK.names} for true, cost in costs.items()}


def make_sample(truth: list[int], **arms: list[list[float]]) -> Sample:
    return Sample({arm: np.log(np.array(rows)) for arm, rows in arms.items()}, np.array(truth))


def test_overconfidence_of_two_gives_temperature_two() -> None:
    # Truth is drawn at 4 to 1; the arm says 16 to 1, whose square root is 4 to 1.
    sample = make_sample([0] * 80 + [1] * 20, bert=[[16 / 17, 1 / 17]] * 100)
    assert fit_temperature(sample) == pytest.approx(2.0, abs=1e-3)


def test_calibrated_arm_keeps_temperature_one() -> None:
    sample = make_sample([0] * 80 + [1] * 20, bert=[[0.8, 0.2]] * 100)
    assert fit_temperature(sample) == pytest.approx(1.0, abs=1e-3)


def test_few_rows_fit_nothing() -> None:
    assert fit_temperature(make_sample([0] * 5, bert=[[0.9, 0.1]] * 5)) == 1.0
    assert fit_weight(make_sample([0] * 5, bert=[[0.9, 0.1]] * 5, llm=[[0.1, 0.9]] * 5)) == {"bert": 0.5, "llm": 0.5}


def test_noise_gets_no_weight() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    good = [[0.9, 0.1] if label == 0 else [0.1, 0.9] for label in truth]
    noise = rng.dirichlet([0.5, 0.5], 200).clip(1e-6).tolist()
    assert fit_weight(make_sample(truth.tolist(), bert=noise, llm=good)) == {"bert": 0.0, "llm": 1.0}
    assert fit_weight(make_sample(truth.tolist(), bert=good, llm=noise)) == {"bert": 1.0, "llm": 0.0}


def test_arms_that_know_different_things_are_blended_and_beat_both() -> None:
    truth, bert, llm = [], [], []
    for index in range(200):
        label = index // 2 % 2
        sure = [0.99, 0.01] if label == 0 else [0.01, 0.99]
        truth.append(label)
        bert.append(sure if index % 4 < 2 or index % 3 else [0.5, 0.5])
        llm.append(sure if index % 3 == 0 else [0.45, 0.55])
    sample = make_sample(truth, bert=bert, llm=llm)
    weight = fit_weight(sample)
    assert 0 < weight["bert"] < 1
    assert weight["bert"] + weight["llm"] == pytest.approx(1)
    blended = nll(sample.blended(weight), sample.truth)
    assert blended < min(nll(log_softmax(rows), sample.truth) for rows in sample.log_p.values())


def test_one_arm_alone_has_all_the_weight() -> None:
    assert fit_weight(make_sample([0] * 30, bert=[[0.9, 0.1]] * 30)) == {"bert": 1.0, "llm": 0.0}


def test_dear_misses_lower_the_threshold() -> None:
    # P(high) is 0.3 everywhere and one in four is truly high: answering high costs 3 per four rows, missing costs 9.
    p = np.array([[0.7, 0.0, 0.0, 0.3]] * 40)
    truth = np.array([3] * 10 + [0] * 30)
    assert fit_risk_thresholds(p, truth, RISK, make_cost(alarm=1, miss=9))["high"] <= 0.3


def test_dear_alarms_raise_the_threshold() -> None:
    p = np.array([[0.7, 0.0, 0.0, 0.3]] * 40)
    truth = np.array([3] * 10 + [0] * 30)
    thresholds = fit_risk_thresholds(p, truth, RISK, make_cost(alarm=9, miss=1))
    assert thresholds["high"] > 0.3
    assert thresholds["medium"] > 0.3


def test_tied_thresholds_lie_in_the_middle_of_the_gap() -> None:
    p = np.array([[0.9, 0.0, 0.0, 0.1]] * 20 + [[0.1, 0.0, 0.0, 0.9]] * 20)
    truth = np.array([0] * 20 + [3] * 20)
    assert fit_risk_thresholds(p, truth, RISK, RISK.cost)["high"] == pytest.approx(0.5, abs=0.06)


def test_without_risky_rows_thresholds_stay() -> None:
    p = np.array([[0.9, 0.1, 0.0, 0.0]] * 40)
    assert fit_risk_thresholds(p, np.zeros(40, dtype=int), RISK, RISK.cost) == {"medium": 0.5, "high": 0.5}


def make_rows(count: int) -> tuple[list[dict[str, ArmScores]], list[dict[str, str]]]:
    """BERT is right and sure on the first half, wrong and unsure on the second; the LLM is always right."""
    scores, labels = [], []
    for index in range(count):
        rank = index % 3
        truth = {item.name: item.names[min(rank + (item.name == "risk"), 3)] for item in SCHEMA.dimensions}
        bert, llm = {}, {}
        for item in SCHEMA.dimensions:
            place = item.index(truth[item.name])
            sure = index < count // 2
            peak = place if sure else (place + 1) % len(item.names)
            bert[item.name] = spread(item.names, peak, 0.95 if sure else 0.55)
            llm[item.name] = spread(item.names, place, 0.9)
        scores.append({"bert": ArmScores("bert", bert, 1.0), "llm": ArmScores("llm", llm, 1.0)})
        labels.append(truth)
    return scores, labels


def spread(names: tuple[str, ...], peak: int, p: float) -> dict[str, float]:
    return {name: p if index == peak else (1 - p) / (len(names) - 1) for index, name in enumerate(names)}


def test_partial_labels_and_missing_arms_are_left_out() -> None:
    scores, labels = make_rows(120)
    extra_scores = [{"bert": scores[0]["bert"]} for _ in range(10)]
    partial = [{"stress": "low"} for _ in range(10)]
    with_extra = fit_calibration(scores + extra_scores, labels + partial)
    plain = fit_calibration(scores, labels)
    assert with_extra.weight == plain.weight
    assert with_extra.temperature["bert"]["emotion"] == plain.temperature["bert"]["emotion"]
    assert with_extra.temperature["bert"]["stress"] != plain.temperature["bert"]["stress"]


def test_no_rows_give_the_identity() -> None:
    calibration = fit_calibration([], [])
    assert calibration.temperature["bert"] == dict.fromkeys(SCHEMA.names, 1.0)
    assert calibration.risk_thresholds == {"medium": 0.5, "high": 0.5}
