"""How long and how big, by hand-computed values."""

from typing import Any

import pytest

from training.estimates import Pace, Workload, estimate_run, measure_pace
from training.jobs.config import parse_options
from training.machine import BaseModel

MINILM = BaseModel("MiniLM", "bert", size_mb=87.0, layers=6, hidden=384)
# 38 tokens of 4.2 characters, and the two at the ends of a text.
FORTY_TOKENS = 38 * 4.2
JUDGING_S = 0.1 * (240 + 2 * 600)


def work(kind: str = "bert", rows: int = 3000, base: BaseModel | None = MINILM, **options: Any) -> Workload:
    return Workload(kind, parse_options(kind, options), rows, FORTY_TOKENS, base)


def pace(**overrides: Any) -> Pace:
    values: dict[str, Any] = {"run_id": 7, "rows_per_s": 50.0, "rest_s": 20.0, "tokens": 40.0, "base_mb": 87.0}
    return Pace(**(values | {"peak_mb": 900.0, "batch_tokens": 32 * 192.0} | overrides))


def test_without_a_measured_run_the_stated_pace_counts() -> None:
    # 3000 rows, 3 epochs, 30 rows a second; then the judging.
    estimate = estimate_run(work())
    assert estimate.seconds == pytest.approx(300 + JUDGING_S)
    assert estimate.measured_on is None


def test_a_measured_run_stands_above_the_stated_pace() -> None:
    estimate = estimate_run(work(), pace())
    assert estimate.seconds == pytest.approx(9000 / 50 + 20)
    assert estimate.measured_on == 7


@pytest.mark.parametrize(
    ("changed", "factor"),
    [({"rows": 6000}, 2), ({"epochs": 6}, 2), ({"base": BaseModel("big", "bert", 870.0, 24, 1024)}, 10)],
)
def test_time_grows_with_rows_epochs_and_weights(changed: dict[str, Any], factor: int) -> None:
    training_s = estimate_run(work(**changed), pace(rest_s=0.0)).seconds
    assert training_s == pytest.approx(factor * 180)


def test_only_the_rows_that_are_used_count() -> None:
    few, all_rows = (estimate_run(work("sft", max_rows=limit)).seconds for limit in (300, 0))
    assert few - JUDGING_S == pytest.approx((all_rows - JUDGING_S) / 10)


def test_measured_memory_holds_for_the_same_batch_alone() -> None:
    assert estimate_run(work(), pace()).memory_mb == 900.0
    assert estimate_run(work(batch_size=512), pace()).memory_mb > 2000


def test_quantised_weights_take_less_memory() -> None:
    llm = BaseModel("llm", "llm", 14_000.0, 32, 4096)
    whole, eighth = (estimate_run(work("sft", base=llm, quantise=how)).memory_mb for how in ("", "4bit"))
    assert whole - eighth == pytest.approx(14_000 * 0.86)


def event(second: int, kind: str, done: int = 0, stage: str = "train") -> dict[str, Any]:
    at = f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000+00:00"
    return {"t": at, "kind": kind, "stage": stage} | ({"done": done, "total": 100} if kind == "progress" else {})


def test_pace_is_the_time_of_all_steps_and_what_followed() -> None:
    events = [
        event(0, "stage"),
        event(10, "progress", 10),
        event(20, "progress", 20),
        event(30, "stage", stage="evaluate"),
        event(65, "progress", 4, stage="evaluate candidate"),
    ]
    # Ten steps took 10 s, so 100 take 100 s; the last word came 45 s after the last step.
    assert measure_pace(events) == (100.0, 45.0)


def test_pace_leaves_out_the_time_between_two_attempts() -> None:
    first = [event(0, "stage"), event(10, "progress", 10), event(20, "progress", 20)]
    second = [event(3000, "stage"), event(3010, "progress", 21), event(3020, "progress", 31)]
    assert measure_pace(first + second) == (100.0, 0.0)


def test_pace_needs_two_steps() -> None:
    assert measure_pace([event(0, "stage"), event(1, "progress", 1)]) is None
