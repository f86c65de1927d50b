"""How often a rule is right, as far as people have said: a Beta posterior over its annotated hits."""

from dataclasses import dataclass
from functools import lru_cache

PRIOR = 1.0
"""Added to right and to wrong hits: a uniform prior."""
TAIL = 0.025
EARNED_LOW = 0.9
"""An allow rule has earned its force once the lower end of its interval is here: 35 right hits of 35, or 52 of 53."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Of `hits` annotated hits people confirmed `confirmed`; `low` to `high` is the central 95 % of the posterior."""

    hits: int
    confirmed: int
    mean: float
    low: float
    high: float

    @property
    def is_earned(self) -> bool:
        return self.low >= EARNED_LOW


@lru_cache(maxsize=4096)
def estimate_precision(confirmed: int, hits: int) -> Precision:
    """Mean and interval of Beta(1 + confirmed, 1 + hits - confirmed)."""
    # Here and not above: most processes load rules whose force asks for no measurement.
    from scipy.special import betaincinv

    right, wrong = PRIOR + confirmed, PRIOR + hits - confirmed
    low, high = (float(betaincinv(right, wrong, tail)) for tail in (TAIL, 1 - TAIL))
    return Precision(hits, confirmed, right / (right + wrong), low, high)
