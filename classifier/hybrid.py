"""Calibration, blend and precedence: from arm scores and rule verdict to labels. Pure; no torch, no files."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from classifier.errors import BundleError
from classifier.rules.engine import RuleVerdict
from classifier.schema import Dimension, Schema
from classifier.types import ArmScores, Labels, Probabilities

Policy = Literal["weighted", "cascade"]
POLICIES: tuple[Policy, ...] = ("weighted", "cascade")
ARMS = ("bert", "llm")
ABSTAIN_FIELDS = ("target", "limit", "coverage")
TOP_RISK = "high"
FLOOR_P = 1e-12
"""A probability of 0 becomes this before its logarithm is taken."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """Where the LLM is asked. Fitted by `fit_cascade`: where it has changed no answer for the better it is not."""

    confidence: Mapping[str, Mapping[str, float]]
    """Dimension -> BERT's own answer -> below this probability of it BERT counts as unsure."""
    risk_hint: float
    """From this P(risk >= medium) on the LLM is asked, however sure BERT is."""
    risk_sure: float = 1.0
    """From here on BERT sees the risk itself: neither the hint nor a rule is a reason to ask any more."""

    @classmethod
    def uniform(cls, schema: Schema, limit: float, *, risk_hint: float, risk_sure: float = 1.0) -> Self:
        """The same confidence asked of every answer."""
        confidence = {dimension.name: dict.fromkeys(dimension.names, limit) for dimension in schema.dimensions}
        return cls(confidence=confidence, risk_hint=risk_hint, risk_sure=risk_sure)


@dataclass(frozen=True, slots=True)
class Abstain:
    """Whose risk label is too uncertain to stand goes to a human unscored. Fitted by `calibrate.fit_abstain`."""

    target: float
    """The selective accuracy asked for: share of right risk labels among those that are given."""
    limit: float
    """Below this probability of its own risk label the classifier gives no answer."""
    coverage: float
    """Share of the held-out rows that kept their answer."""


@dataclass(frozen=True, slots=True)
class Calibration:
    temperature: Mapping[str, Mapping[str, float]]
    """Arm -> dimension -> T."""
    weight: Mapping[str, Mapping[str, float]]
    """Dimension -> arm -> weight; the two of a dimension sum to 1."""
    cascade: Cascade
    risk_thresholds: Mapping[str, float]
    """`medium` and `high`: the least P(risk >= value) that gives the value."""
    abstain: Abstain | None = None
    """None: every text that an arm could score gets an answer."""

    @classmethod
    def identity(cls, schema: Schema) -> Self:
        return cls(
            temperature={arm: dict.fromkeys(schema.names, 1.0) for arm in ARMS},
            weight={name: {"bert": 0.5, "llm": 0.5} for name in schema.names},
            cascade=Cascade.uniform(schema, 0.9, risk_hint=0.1),
            risk_thresholds={"medium": 0.5, "high": 0.5},
        )

    @classmethod
    def from_json(cls, text: str, schema: Schema) -> Self:
        """Raises BundleError naming the field that is missing or out of range."""
        try:
            raw: Any = json.loads(text)
            calibration = cls(
                temperature={arm: _floats(raw["temperature"][arm], schema.names) for arm in ARMS},
                weight={name: _floats(raw["weight"][name], ARMS) for name in schema.names},
                cascade=Cascade(
                    confidence={
                        dimension.name: _floats(raw["cascade"]["confidence"][dimension.name], dimension.names)
                        for dimension in schema.dimensions
                    },
                    risk_hint=float(raw["cascade"]["risk_hint"]),
                    risk_sure=float(raw["cascade"]["risk_sure"]),
                ),
                risk_thresholds=_floats(raw["risk_thresholds"], ("medium", "high")),
                abstain=Abstain(**_floats(raw["abstain"], ABSTAIN_FIELDS)) if raw.get("abstain") else None,
            )
        except KeyError as error:
            raise BundleError(f"calibration.json lacks {error.args[0]!r}") from error
        except (ValueError, TypeError) as error:
            raise BundleError(f"calibration.json is malformed: {error}") from error
        calibration._check()
        return calibration

    def to_json(self) -> str:
        raw: dict[str, Any] = {
            "temperature": {arm: dict(row) for arm, row in self.temperature.items()},
            "weight": {name: dict(row) for name, row in self.weight.items()},
            "cascade": asdict(self.cascade),
            "risk_thresholds": dict(self.risk_thresholds),
        }
        if self.abstain is not None:
            raw["abstain"] = asdict(self.abstain)
        return json.dumps(raw, indent=2) + "\n"

    def _check(self) -> None:
        for arm, row in self.temperature.items():
            for name, temperature in row.items():
                if not (math.isfinite(temperature) and temperature > 0):
                    raise BundleError(f"calibration.json: temperature.{arm}.{name} must be a number above 0")
        for name, weights in self.weight.items():
            if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
                raise BundleError(f"calibration.json: weight.{name} must be two numbers >= 0 that sum to 1")
        shares = {"risk_hint": self.cascade.risk_hint, "risk_sure": self.cascade.risk_sure, **self.risk_thresholds}
        for name, limits in self.cascade.confidence.items():
            shares |= {f"confidence.{name}.{value}": share for value, share in limits.items()}
        if self.abstain is not None:
            shares |= {f"abstain.{name}": share for name, share in asdict(self.abstain).items()}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise BundleError(f"calibration.json: {name} must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`labels` is empty where the text stays unscored: no arm gave usable scores, or the answer is withheld."""

    labels: Labels = field(default_factory=dict)
    probabilities: Probabilities = field(default_factory=dict)
    is_withheld: bool = False
    """Its risk is too uncertain: see Abstain."""


def is_usable(scores: ArmScores | None, schema: Schema) -> bool:
    """Whether an arm gave a finite probability for every value of every dimension, and not all 0 in any."""
    if scores is None:
        return False
    for dimension in schema.dimensions:
        row = scores.probabilities.get(dimension.name, {})
        numbers = [row.get(name, math.nan) for name in dimension.names]
        if not all(math.isfinite(number) and number >= 0 for number in numbers) or sum(numbers) <= 0:
            return False
    return True


def calibrate(scores: ArmScores, calibration: Calibration, schema: Schema) -> dict[str, dict[str, float]]:
    """softmax(log p / T) per dimension."""
    temperatures = calibration.temperature[scores.arm]
    return {
        dimension.name: _softmax(
            {
                name: _log(scores.probabilities[dimension.name][name]) / temperatures[dimension.name]
                for name in dimension.names
            }
        )
        for dimension in schema.dimensions
    }


def blend(arms: Mapping[str, ArmScores], calibration: Calibration, schema: Schema) -> dict[str, dict[str, float]]:
    """softmax(sum over arms of weight * log p) of calibrated arms; one arm alone answers for itself."""
    calibrated = {arm: calibrate(scores, calibration, schema) for arm, scores in arms.items()}
    if len(calibrated) == 1:
        return next(iter(calibrated.values()))
    return {
        dimension.name: _softmax(
            {
                name: sum(
                    calibration.weight[dimension.name][arm] * _log(rows[dimension.name][name])
                    for arm, rows in calibrated.items()
                )
                for name in dimension.names
            }
        )
        for dimension in schema.dimensions
    }


def needs_llm(
    bert: ArmScores | None, verdict: RuleVerdict, calibration: Calibration, policy: Policy, schema: Schema
) -> bool:
    """`weighted` always asks; `cascade` only when BERT is unsure or missing, or anything leaves the risk open."""
    return policy == "weighted" or any(True for _ in find_llm_reasons(bert, verdict, calibration, schema))


def find_llm_reasons(
    bert: ArmScores | None, verdict: RuleVerdict, calibration: Calibration, schema: Schema
) -> Iterator[str]:
    """Why the cascade asks the LLM, the cheapest look first; nothing where BERT answers alone.

    A floor at the top of the risk is the last word on it: nothing the LLM says could move it.
    """
    if bert is None or not is_usable(bert, schema):
        yield "no bert"
        return
    risk = schema["risk"]
    if verdict.risk_floor == risk.names[-1]:
        return
    rows = calibrate(bert, calibration, schema)
    cascade = calibration.cascade
    p_risky = at_least(rows["risk"], risk, "medium")
    if p_risky < cascade.risk_sure:
        if _is_blocked(verdict):
            yield "block rule"
        if any(item.kind == "hint" for item in verdict.evidence):
            yield "hint rule"
        if p_risky >= cascade.risk_hint:
            yield "risk hint"
    for name in schema.names:
        value = max(rows[name], key=rows[name].__getitem__)
        if rows[name][value] < cascade.confidence[name][value]:
            yield f"unsure of {name}"


def decide_labels(
    arms: Mapping[str, ArmScores], verdict: RuleVerdict, calibration: Calibration, schema: Schema
) -> Outcome:
    """Blend, label, let the rules speak, withhold what is too uncertain.

    Arms must be usable; with none of them the outcome is empty.
    """
    if not arms:
        return Outcome()
    probabilities = blend(arms, calibration, schema)
    labels = {name: max(row, key=row.__getitem__) for name, row in probabilities.items()}
    labels["risk"] = risk_label(probabilities["risk"], schema["risk"], calibration.risk_thresholds)
    if verdict.forced is not None and not _is_blocked(verdict):
        for name, value in verdict.forced.items():
            labels[name] = value
            probabilities[name] = {other: float(other == value) for other in schema[name].names}
    _raise(labels, probabilities, schema["risk"], verdict.risk_floor)
    _raise(labels, probabilities, schema["emotion"], verdict.emotion)
    if not _is_blocked(verdict) and is_too_uncertain(labels["risk"], probabilities["risk"], calibration.abstain):
        return Outcome(probabilities=probabilities, is_withheld=True)
    return Outcome(labels=labels, probabilities=probabilities)


def is_too_uncertain(label: str, row: Mapping[str, float], abstain: Abstain | None) -> bool:
    """Never of the highest risk: such a text is the first that a human sees, and to withhold it would only delay it."""
    return abstain is not None and label != TOP_RISK and row[label] < abstain.limit


def risk_label(row: Mapping[str, float], risk: Dimension, thresholds: Mapping[str, float]) -> str:
    """`high` and `medium` by P(risk >= value), so that missing them can cost more; else the likelier of the rest."""
    for value in ("high", "medium"):
        if at_least(row, risk, value) >= thresholds[value]:
            return value
    return max(risk.names[: risk.index("medium")], key=row.__getitem__)


def at_least(row: Mapping[str, float], dimension: Dimension, value: str) -> float:
    """P(dimension >= value) in order of severity."""
    return sum(row[name] for name in dimension.names[dimension.index(value) :])


def _is_blocked(verdict: RuleVerdict) -> bool:
    # The rule engine promises this already; it is checked again because nothing may lower a floor.
    return verdict.risk_floor is not None or any(item.kind == "block" for item in verdict.evidence)


def _raise(
    labels: dict[str, str], probabilities: dict[str, dict[str, float]], dimension: Dimension, floor: str | None
) -> None:
    """Lift a label to the floor and move the mass below it there. Never lowers: a label above the floor stays."""
    if floor is None:
        return
    name = dimension.name
    rank = max(dimension.index(labels[name]), dimension.index(floor))
    row = probabilities[name]
    lifted = {value: 0.0 if index < rank else row[value] for index, value in enumerate(dimension.names)}
    lifted[dimension.names[rank]] += sum(row[value] for value in dimension.names[:rank])
    probabilities[name] = lifted
    # The mass above may still be larger than all that was moved; then the label follows it, upwards.
    labels[name] = max(dimension.names[rank:], key=lifted.__getitem__)


def _floats(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(row[name]) for name in names}


def _log(p: float) -> float:
    return math.log(max(p, FLOOR_P))


def _softmax(logits: Mapping[str, float]) -> dict[str, float]:
    top = max(logits.values())
    weights = {name: math.exp(logit - top) for name, logit in logits.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
