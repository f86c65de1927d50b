"""Too uncertain is no answer: the limit, how it is fitted, and what it may never withhold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classifier import api
from classifier.bundle import BundleParts, build_bundle, read_calibration
from classifier.calibrate import find_limit, fit_abstain
from classifier.errors import BundleError
from classifier.hybrid import Abstain, Calibration, decide_labels
from classifier.rules.engine import RuleVerdict
from classifier.schema import load_schema
from classifier.types import ArmScores, Evidence
from tests.classifier import toys

SCHEMA = load_schema()
ABSTAIN = Abstain(target=0.9, limit=0.6, coverage=0.7)
CALIBRATION = replace(Calibration.identity(SCHEMA), abstain=ABSTAIN)
SAFE = {"emotion": "positive", "sentiment": "positive", "stress": "low", "risk": "none"}
BLOCK = Evidence("rule", "block", 0, 3, "quoted")


def make_scores(*risk: float) -> dict[str, ArmScores]:
    rows = {item.name: {name: 1 / len(item.names) for name in item.names} for item in SCHEMA.dimensions}
    rows["risk"] = dict(zip(SCHEMA["risk"].names, risk, strict=True))
    return {"bert": ArmScores("bert", rows, 1.0)}


def risk_of(verdict: RuleVerdict, *risk: float) -> str | None:
    outcome = decide_labels(make_scores(*risk), verdict, CALIBRATION, SCHEMA)
    assert outcome.is_withheld == (not outcome.labels)
    return outcome.labels.get("risk")


def test_below_the_limit_there_is_no_answer() -> None:
    assert risk_of(RuleVerdict(), 0.59, 0.41, 0.0, 0.0) is None
    assert risk_of(RuleVerdict(), 0.61, 0.39, 0.0, 0.0) == "none"


def test_probabilities_stay_so_that_the_case_has_its_place() -> None:
    outcome = decide_labels(make_scores(0.5, 0.3, 0.2, 0.0), RuleVerdict(), CALIBRATION, SCHEMA)
    assert outcome.is_withheld
    assert outcome.probabilities["risk"]["medium"] == pytest.approx(0.2)


def test_high_risk_is_never_withheld() -> None:
    assert risk_of(RuleVerdict(), 0.15, 0.15, 0.15, 0.55) == "high"


@pytest.mark.parametrize("verdict", [RuleVerdict(risk_floor="low"), RuleVerdict(evidence=(BLOCK,))])
def test_what_a_block_rule_saw_is_never_withheld(verdict: RuleVerdict) -> None:
    assert risk_of(verdict, 0.4, 0.35, 0.25, 0.0) is not None


def test_what_an_allow_rule_forces_is_certain() -> None:
    assert risk_of(RuleVerdict(forced=SAFE), 0.4, 0.35, 0.25, 0.0) == "none"


def test_off_unless_a_bundle_asks_for_it() -> None:
    plain = Calibration.identity(SCHEMA)
    assert plain.abstain is None
    assert not decide_labels(make_scores(0.3, 0.3, 0.2, 0.2), RuleVerdict(), plain, SCHEMA).is_withheld


def test_a_bundle_without_the_section_loads_as_before() -> None:
    old = Calibration.identity(SCHEMA).to_json()
    assert "abstain" not in old
    assert Calibration.from_json(old, SCHEMA).abstain is None
    assert Calibration.from_json(CALIBRATION.to_json(), SCHEMA) == CALIBRATION


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"target": 0.9, "limit": 1.2, "coverage": 0.5}, "abstain.limit must be between 0 and 1"),
        ({"target": 0.9, "limit": 0.5}, "lacks 'coverage'"),
        ({"target": "most", "limit": 0.5, "coverage": 0.5}, "malformed"),
        ([0.9], "malformed"),
    ],
)
def test_rejects_a_section_that_makes_no_sense(section: object, message: str) -> None:
    raw = json.loads(CALIBRATION.to_json()) | {"abstain": section}
    with pytest.raises(BundleError, match=message):
        Calibration.from_json(json.dumps(raw), SCHEMA)


class TestFit:
    CONFIDENCE = np.repeat([0.9, 0.7, 0.5], 20)
    RIGHT = np.concatenate([np.ones(20), np.ones(16), np.zeros(4), np.ones(10), np.zeros(10)]).astype(bool)
    """1.0 right from 0.9 on, 36 of 40 from 0.7 on, 46 of 60 of all."""
    NOTHING = np.zeros(60, dtype=bool)

    @pytest.mark.parametrize(
        ("target", "limit", "coverage"), [(0.75, 0.0, 1.0), (0.9, 0.7, 0.666667), (0.95, 0.9, 0.333333)]
    )
    def test_takes_the_lowest_limit_that_reaches_the_target(self, target: float, limit: float, coverage: float) -> None:
        found = find_limit(self.CONFIDENCE, self.RIGHT, self.NOTHING, target)
        assert found == Abstain(target, limit, coverage)

    def test_says_none_where_no_limit_reaches_it(self) -> None:
        assert find_limit(self.CONFIDENCE, ~self.RIGHT, self.NOTHING, 0.99) is None

    def test_few_rows_prove_nothing(self) -> None:
        assert find_limit(np.full(19, 0.9), np.ones(19, dtype=bool), np.zeros(19, dtype=bool), 0.9) is None

    def test_what_is_always_given_counts(self) -> None:
        wrong_high = np.arange(60) >= 50
        assert find_limit(self.CONFIDENCE, self.RIGHT, wrong_high, 0.9) is None

    def test_keeps_on_the_fitted_rows_what_it_promises(self) -> None:
        rng = np.random.default_rng(3)
        tops = rng.uniform(0.4, 0.99, 400)
        scores = [make_scores(top, (1 - top) * 0.9, (1 - top) * 0.1, 0.0) for top in tops]
        labels = [{"risk": "none" if rng.random() < top else "low"} for top in tops]
        fitted = fit_abstain(scores, labels, Calibration.identity(SCHEMA), 0.85)
        assert fitted is not None
        calibration = replace(Calibration.identity(SCHEMA), abstain=fitted)
        kept = [
            (outcome.labels["risk"], truth["risk"])
            for item, truth in zip(scores, labels, strict=True)
            if (outcome := decide_labels(item, RuleVerdict(), calibration, SCHEMA)).labels
        ]
        assert len(kept) / 400 == pytest.approx(fitted.coverage)
        assert 0.3 < fitted.coverage < 1
        assert sum(answer == truth for answer, truth in kept) / len(kept) >= 0.85


def test_a_bundle_says_why_it_gives_no_answer(tmp_path: Path) -> None:
    made = toys.make_bundle(tmp_path, name="toy-1", llm=False)
    texts = [f"text {number} {'x' * number}" for number in range(40)]
    before = api.load(made, base_models=tmp_path / "base_models").decide(texts)
    confidence = [decision.probabilities["risk"][decision.labels["risk"]] for decision in before]
    # Between two of its answers: it gives the surer half.
    abstain = Abstain(target=0.9, limit=float(np.median(confidence)), coverage=0.5)
    parts = BundleParts.from_bundle(made, name="toy-abstain")
    build_bundle(tmp_path / "toy-abstain", replace(parts, calibration=replace(parts.calibration, abstain=abstain)))
    assert read_calibration(tmp_path / "toy-abstain").abstain == abstain
    after = api.load(tmp_path / "toy-abstain", base_models=tmp_path / "base_models").decide(texts)
    for old, new, share in zip(before, after, confidence, strict=True):
        is_sure = old.labels["risk"] == "high" or share >= abstain.limit
        assert new.unscored == (None if is_sure else "uncertain")
        assert new.labels == (old.labels if is_sure else {})
        assert new.probabilities == old.probabilities
    assert {decision.unscored for decision in after} == {None, "uncertain"}
