"""Figures against numbers worked out by hand."""

import numpy as np
import pytest

from classifier.schema import load_schema
from training.jobs import measures
from training.jobs.measures import Bools, Indices

RISK = load_schema()["risk"]
LINE = RISK.index("medium")


def truths(*labels: str) -> Bools:
    return measures.encode_truth(labels, RISK)[1]


def answers(*labels: str) -> Indices:
    return np.array([RISK.index(label) for label in labels])


def test_any_admitted_value_is_right() -> None:
    allowed = truths("medium|high", "medium|high", "none|low", "high")
    assert measures.is_right(allowed, answers("high", "low", "none", "medium")).tolist() == [True, False, True, False]


def test_a_miss_counts_against_the_nearest_admitted_value() -> None:
    allowed = truths("medium|high", "none|low", "medium|high")
    assert measures.resolve(allowed, answers("none", "high", "high")).tolist() == [2, 1, 3]


def test_of_a_distribution_the_likeliest_value_counts_and_of_a_tie_both() -> None:
    assert measures.admit({"none": 0.7, "low": 0.3}, RISK) == (True, False, False, False)
    assert measures.admit({"none": 0.5, "low": 0.5}, RISK) == (True, True, False, False)
    assert measures.admit(None, RISK) is None


def test_macro_f1_is_the_mean_over_the_values_that_occur() -> None:
    allowed = truths("none", "none", "low", "high")
    # none: 2*1/(2+1); low: 2*1/(1+2); high: 2*1/(1+1); medium does not occur.
    found = measures.estimate_f1(allowed, answers("none", "low", "low", "high"), times=50)
    assert found.value == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_an_interval_holds_the_value_and_is_the_same_every_time() -> None:
    allowed = truths(*["none", "low"] * 50)
    given = answers(*(["none", "low"] * 35 + ["low", "none"] * 15))
    first, second = (measures.estimate_f1(allowed, given) for _ in range(2))
    assert first == second
    assert first.low is not None
    assert first.high is not None
    # A share of 0.7 of 100 rows has a standard error of 0.046.
    assert 0.7 - 2.4 * 0.046 < first.low < 0.7 - 1.5 * 0.046
    assert 0.7 + 1.5 * 0.046 < first.high < 0.7 + 2.4 * 0.046


def test_a_paired_gain_of_nothing_has_no_width() -> None:
    allowed = truths(*["none", "low", "high"] * 10)
    given = answers(*["none", "high", "high"] * 10)
    gain = measures.estimate_f1_gain(allowed, given, given, times=100)
    assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_no_rows_give_no_figure() -> None:
    allowed, none = truths(), answers()
    assert measures.estimate_f1(allowed, none).value is None
    assert measures.expected_calibration_error(np.array([]), np.array([], dtype=bool)) is None
    assert measures.brier(np.empty((0, 4)), none) is None
    assert measures.Rate(0, 0).as_dict() == {"hits": 0, "total": 0, "share": None, "low": None, "high": None}


def test_wilson_interval() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    assert measures.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert measures.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_risk_is_missed_or_alarmed_across_the_line_alone() -> None:
    allowed = truths("medium|high", "high", "medium", "none|low", "none", "low|medium")
    given = answers("low", "medium", "none", "high", "low", "high")
    # The last row stands on both sides of the line: it counts for neither.
    assert measures.missed_risk(allowed, given, LINE) == measures.Rate(2, 3)
    assert measures.false_alarm(allowed, given, LINE) == measures.Rate(1, 2)


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    score, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert measures.auroc(score, positive) == 0.75
    # A tie is half an ordered pair.
    assert measures.auroc(np.array([0.5, 0.5]), np.array([False, True])) == 0.5
    assert measures.auroc(score, np.array([True] * 4)) is None


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    # Two bins: |1 - 0.95| and |0.5 - 0.55|, half of the rows each.
    assert measures.expected_calibration_error(confidence, right) == pytest.approx(0.05)
    assert measures.expected_calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_brier_and_likelihood() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    truth = np.array([0, 2])
    # (0.09 + 0.04 + 0.01) and (0 + 0.25 + 0.25)
    assert measures.brier(p, truth) == pytest.approx((0.14 + 0.5) / 2)
    assert measures.negative_log_likelihood(p, truth) == pytest.approx(-(np.log(0.7) + np.log(0.5)) / 2)


def test_selective_curve_takes_the_surest_first_and_ties_together() -> None:
    curve = measures.selective_curve(np.array([0.5, 0.9, 0.8, 0.8]), np.array([False, True, True, False]))
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1.0, 2 / 3, 0.5])
    # 0.25 * 1 + 0.5 * 2/3 + 0.25 * 1/2
    assert curve.area == pytest.approx(0.25 + 1 / 3 + 0.125)
    assert curve.coverage_at(0.6) == 0.75
    assert curve.coverage_at(0.99) == 0.25
    assert measures.selective_curve(np.array([0.5]), np.array([False])).coverage_at(0.9) is None


def test_a_thinned_curve_keeps_its_ends() -> None:
    curve = measures.selective_curve(np.linspace(1, 0, 500), np.array([True] * 500))
    points = curve.thin(20)
    assert len(points) == 20
    assert (points[0], points[-1]) == ([0.002, 1.0], [1.0, 1.0])
