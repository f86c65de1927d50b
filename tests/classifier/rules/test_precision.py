import pytest

from classifier.rules.precision import EARNED_LOW, estimate_precision

# Beta(1 + right, 1 + wrong) by hand: without a wrong hit its quantile q is q**(1 / (right + 1)); without any hit it is
# uniform; Beta(2, 2) has the distribution function 3x^2 - 2x^3, which is 0.025 at 0.094299324 and symmetric.
KNOWN = [
    (0, 0, 0.5, 0.025, 0.975),
    (1, 1, 2 / 3, 0.025 ** (1 / 2), 0.975 ** (1 / 2)),
    (35, 35, 36 / 37, 0.025 ** (1 / 36), 0.975 ** (1 / 36)),
    (1, 2, 0.5, 0.094299324, 0.905700676),
    (0, 3, 0.2, 1 - 0.975 ** (1 / 4), 1 - 0.025 ** (1 / 4)),
]


@pytest.mark.parametrize(("confirmed", "hits", "mean", "low", "high"), KNOWN)
def test_posterior_of_known_counts(confirmed: int, hits: int, mean: float, low: float, high: float) -> None:
    found = estimate_precision(confirmed, hits)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, low, high), abs=1e-8)


def test_the_lower_end_earns_not_the_mean() -> None:
    few, many = estimate_precision(34, 34), estimate_precision(35, 35)
    assert few.mean > EARNED_LOW
    assert (few.is_earned, many.is_earned) == (False, True)
