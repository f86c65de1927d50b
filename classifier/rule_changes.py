"""What other rules would make of a text: two verdicts, and the two decisions where the arms' scores are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from classifier.hybrid import Calibration, Policy, decide_labels, needs_llm
from classifier.rules.engine import RuleSet, RuleVerdict
from classifier.schema import Schema, load_schema
from classifier.types import ArmScores, Evidence, Labels

FLOOR_RAISED, FLOOR_LOWERED = "floor_raised", "floor_lowered"
FORCED, FREED = "forced", "freed"
LABEL_CHANGED = "label_changed"
EVIDENCE_GAINED, EVIDENCE_LOST = "evidence_gained", "evidence_lost"
ASKS_LLM = "asks_llm"
KINDS = (
    FLOOR_RAISED,
    FLOOR_LOWERED,
    FORCED,
    FREED,
    LABEL_CHANGED,
    EVIDENCE_GAINED,
    EVIDENCE_LOST,
    ASKS_LLM,
)
"""Ways in which a text is touched, the weightiest first."""


@dataclass(frozen=True, slots=True)
class Blend:
    """What a bundle decides with, beside its rules."""

    calibration: Calibration
    policy: Policy
    has_llm: bool
    schema: Schema = field(default_factory=load_schema)


@dataclass(frozen=True, slots=True)
class Seen:
    """One side of a change. `labels` is empty where no arm's scores are known, or the answer is withheld."""

    floor: str
    evidence: tuple[Evidence, ...]
    labels: Labels

    def as_dict(self) -> dict[str, Any]:
        evidence = [item.as_dict() for item in self.evidence]
        return {"floor": self.floor, "evidence": evidence, "labels": dict(self.labels)}


@dataclass(frozen=True, slots=True)
class Change:
    kinds: tuple[str, ...]
    before: Seen
    after: Seen


def compare(
    text: str, before: RuleSet, after: RuleSet, *, arms: Sequence[ArmScores] = (), blend: Blend | None = None
) -> Change | None:
    """None where nothing changes. The labels of both sides are decided anew from `arms`, where both are given."""
    old, new = before.apply(text), after.apply(text)
    if old == new:
        return None
    scores: dict[str, ArmScores] = {item.arm: item for item in arms}
    left, right = _see(old, scores, blend), _see(new, scores, blend)
    kinds = [*_compare_verdicts(old, new)]
    if left.labels != right.labels:
        kinds.append(LABEL_CHANGED)
    if blend and scores and _asks_anew(old, new, scores, blend):
        kinds.append(ASKS_LLM)
    return Change(tuple(kind for kind in KINDS if kind in kinds), left, right) if kinds else None


def _see(verdict: RuleVerdict, scores: Mapping[str, ArmScores], blend: Blend | None) -> Seen:
    labels: Labels = {}
    if blend is not None and scores:
        labels = decide_labels(scores, verdict, blend.calibration, blend.schema).labels
    return Seen(verdict.risk_floor or "", verdict.evidence, labels)


def _compare_verdicts(old: RuleVerdict, new: RuleVerdict) -> list[str]:
    risk = load_schema()["risk"]
    rank = {None: -1} | {name: place for place, name in enumerate(risk.names)}
    kinds = []
    if rank[new.risk_floor] != rank[old.risk_floor]:
        kinds.append(FLOOR_RAISED if rank[new.risk_floor] > rank[old.risk_floor] else FLOOR_LOWERED)
    if new.forced != old.forced:
        kinds.append(FORCED if new.forced is not None else FREED)
    gained, lost = set(new.evidence) - set(old.evidence), set(old.evidence) - set(new.evidence)
    return [*kinds, *([EVIDENCE_GAINED] if gained else []), *([EVIDENCE_LOST] if lost else [])]


def _asks_anew(old: RuleVerdict, new: RuleVerdict, scores: Mapping[str, ArmScores], blend: Blend) -> bool:
    """Whether the LLM, which was not asked, would be: then the labels after the change are BERT's alone for now."""
    if not blend.has_llm or "llm" in scores:
        return False
    asked = [needs_llm(scores.get("bert"), item, blend.calibration, blend.policy, blend.schema) for item in (old, new)]
    return asked == [False, True]
