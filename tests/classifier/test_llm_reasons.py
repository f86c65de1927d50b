"""Why the cascade asks the LLM, and the shares that the bench makes of it."""

from dataclasses import replace

import pytest

from bench.hybrid import count_llm_reasons
from classifier.hybrid import Calibration, Cascade, find_llm_reasons, needs_llm
from classifier.rules.engine import RuleVerdict
from classifier.schema import load_schema
from classifier.types import ArmScores, Evidence
from training.jobs.arm_scores import Scored

SCHEMA = load_schema()
CALIBRATION = replace(Calibration.identity(SCHEMA), cascade=Cascade.uniform(SCHEMA, 0.6, risk_hint=0.3, risk_sure=0.8))


def bert(**least_likely: float) -> ArmScores:
    """`dimension=p`: that much on the last value, the rest on the first."""
    rows = {}
    for dimension in SCHEMA.dimensions:
        p = least_likely.get(dimension.name, 0.0)
        rows[dimension.name] = dict.fromkeys(dimension.names, 0.0) | {
            dimension.names[0]: 1 - p,
            dimension.names[-1]: p,
        }
    return ArmScores("bert", rows, 1.0)


def verdict(kind: str) -> RuleVerdict:
    return RuleVerdict(evidence=(Evidence("r", kind, 0, 1, "negated"),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scores", "rules", "reasons"),
    [
        (bert(), RuleVerdict(), []),
        (None, RuleVerdict(), ["no bert"]),
        (bert(), verdict("block"), ["block rule"]),
        (bert(), RuleVerdict(risk_floor="medium"), ["block rule"]),
        # The floor is the last word: nothing the LLM says could move it.
        (bert(risk=0.35, stress=0.45), RuleVerdict(risk_floor="high"), []),
        (bert(), verdict("hint"), ["hint rule"]),
        (bert(), verdict("allow"), []),
        (bert(risk=0.35), RuleVerdict(), ["risk hint"]),
        # BERT sees the risk itself: a human looks in any case.
        (bert(risk=0.85), verdict("hint"), []),
        (bert(risk=0.85, stress=0.45), RuleVerdict(risk_floor="medium"), ["unsure of stress"]),
        (bert(risk=0.29, stress=0.45), verdict("hint"), ["hint rule", "unsure of stress"]),
        (bert(emotion=0.5, risk=0.5), RuleVerdict(), ["risk hint", "unsure of emotion", "unsure of risk"]),
    ],
)
def test_every_reason_is_named(scores: ArmScores | None, rules: RuleVerdict, reasons: list[str]) -> None:
    assert list(find_llm_reasons(scores, rules, CALIBRATION, SCHEMA)) == reasons
    assert needs_llm(scores, rules, CALIBRATION, "cascade", SCHEMA) is bool(reasons)


def test_shares_are_of_all_texts_and_say_which_reason_stood_alone() -> None:
    scored = [
        Scored(RuleVerdict(), {"bert": bert()}),
        Scored(RuleVerdict(), {"bert": bert(risk=0.35)}),
        Scored(verdict("hint"), {"bert": bert(risk=0.35)}),
        Scored(RuleVerdict(), {}),
    ]
    found = count_llm_reasons(scored, CALIBRATION, SCHEMA)
    assert found["share"] == 0.75
    assert found["reasons"] == {"risk hint": 0.5, "hint rule": 0.25, "no bert": 0.25}
    assert found["alone"] == {"risk hint": 0.25, "no bert": 0.25}
    # Another calibration on the same scores.
    calm = replace(CALIBRATION, cascade=replace(CALIBRATION.cascade, risk_hint=0.4))
    assert count_llm_reasons(scored, calm, SCHEMA)["share"] == 0.5
