"""May a candidate serve in the baseline's place? Pure: figures in, gates out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifier.schema import load_schema

MISSED_SLACK = 0.01
ALARM_SLACK = 0.03
F1_SLACK = 0.02
MIN_ROWS = 5
"""With fewer rows a share says nothing; no gate is made of it."""

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gate:
    """`value` against `bar`; `why` is a sentence for the person who reads a refusal."""

    name: str
    passed: bool
    value: float | str
    bar: float | str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "passed": self.passed, "value": self.value, "bar": self.bar, "why": self.why}


def compare(candidate: Figures, baseline: Figures) -> list[Gate]:
    """Gates against the release that serves, on the same rows. A figure that has no rows makes no gate."""
    gates = [
        _at_most(
            "missed risk",
            candidate["test"]["missed_risk"]["share"],
            baseline["test"]["missed_risk"]["share"],
            MISSED_SLACK,
            "of the held-out texts with medium or high risk, at most one in a hundred more may be missed",
        ),
        _at_most(
            "false alarms",
            candidate["test"]["false_alarm"]["share"],
            baseline["test"]["false_alarm"]["share"],
            ALARM_SLACK,
            "of the held-out harmless texts, at most three in a hundred more may be flagged",
        ),
        _at_least(
            "macro F1",
            mean_figure(candidate["test"], "macro_f1"),
            mean_figure(baseline["test"], "macro_f1"),
            F1_SLACK,
            "over all four dimensions it may lose at most two points on the held-out texts",
        ),
    ]
    for part, name, why in (
        ("test_feedback", "held-out corrections", "people's corrections it has not seen must not come out worse"),
        ("learned_feedback", "learned corrections", "corrections it was trained on must not come out worse"),
    ):
        if candidate[part]["rows"] >= MIN_ROWS:
            gates.append(
                _at_least(
                    name, mean_figure(candidate[part], "accuracy"), mean_figure(baseline[part], "accuracy"), 0, why
                )
            )
    return [gate for gate in gates if gate is not None]


def mean_figure(figures: Figures, name: str) -> float | None:
    """Mean over the dimensions that have rows; None when none has."""
    values = [value for dimension in load_schema().names if (value := figures[dimension][name]) is not None]
    return sum(values) / len(values) if values else None


def _at_most(name: str, value: float | None, baseline: float | None, slack: float, why: str) -> Gate | None:
    if value is None or baseline is None:
        return None
    bar = baseline + slack
    return Gate(name, value <= bar + 1e-9, round(value, 4), round(bar, 4), why)


def _at_least(name: str, value: float | None, baseline: float | None, slack: float, why: str) -> Gate | None:
    if value is None or baseline is None:
        return None
    bar = baseline - slack
    return Gate(name, value >= bar - 1e-9, round(value, 4), round(bar, 4), why)
