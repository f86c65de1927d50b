"""What the classifier says about a text. All values are immutable and hold no text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Labels = Mapping[str, str]
"""Dimension name -> value name."""

Probabilities = Mapping[str, Mapping[str, float]]
"""Dimension name -> value name -> probability; each dimension sums to 1."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One rule hit. `start` and `end` slice the original text, as given by the caller."""

    rule: str
    kind: Literal["block", "allow", "hint"]
    start: int
    end: int
    scope: str
    """`plain`, or what stands around the hit: negated, third_person, quoted, hypothetical, past, idiom, medical …;
    `help_seeking` and `joke` are noted but clear nothing. `trial`: an allow rule that has no force yet."""

    def as_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "kind": self.kind, "start": self.start, "end": self.end, "scope": self.scope}


@dataclass(frozen=True, slots=True)
class ArmScores:
    """What one arm says by itself, before calibration and blending."""

    arm: Literal["bert", "llm"]
    probabilities: Probabilities
    latency_ms: float

    def as_dict(self) -> dict[str, Any]:
        return {"arm": self.arm, "probabilities": self.probabilities, "latency_ms": round(self.latency_ms, 3)}


@dataclass(frozen=True, slots=True)
class Decision:
    """The classifier's answer. `unscored` is the reason where there is none: such a text goes to a human."""

    release: str
    labels: Labels = field(default_factory=dict)
    probabilities: Probabilities = field(default_factory=dict)
    arms: tuple[ArmScores, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    risk_floor: str | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    unscored: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form used by the HTTP interface and stored in predictions."""
        return {
            "release": self.release,
            "labels": dict(self.labels),
            "probabilities": {name: dict(row) for name, row in self.probabilities.items()},
            "arms": [arm.as_dict() for arm in self.arms],
            "evidence": [item.as_dict() for item in self.evidence],
            "risk_floor": self.risk_floor,
            "latency_ms": {name: round(ms, 3) for name, ms in self.latency_ms.items()},
            "unscored": self.unscored,
        }
