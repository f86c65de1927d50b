"""The door: text in, Decision out, for any text whatever."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifier import api
from classifier.bundle import BundleParts, build_bundle, manifest_sha256
from classifier.errors import BundleError, GoldenCheckFailed
from classifier.schema import load_schema
from classifier.types import ArmScores
from tests.classifier import toys


def test_import_loads_no_torch() -> None:
    code = "import sys, classifier.api, classifier.cli; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_decision_is_complete(toy_classifier: api.Classifier) -> None:
    (decision,) = toy_classifier.decide(["the dog ate my lunch"])
    assert decision.labels == {"emotion": "sadness", "sentiment": "neutral", "stress": "low", "risk": "low"}
    for dimension in load_schema().dimensions:
        assert set(decision.probabilities[dimension.name]) == set(dimension.names)
        assert sum(decision.probabilities[dimension.name].values()) == pytest.approx(1)
    assert [arm.arm for arm in decision.arms] == ["bert", "llm"]
    assert set(decision.latency_ms) == {"rules", "bert", "llm"}
    assert decision.release == "toy-1"
    assert json.loads(json.dumps(decision.as_dict()))["unscored"] is None


def test_same_order_and_same_answer_alone_or_together(toy_classifier: api.Classifier) -> None:
    texts = ["I went to the store", "", "x" * 400, "the dog ate my lunch", "I will marry her", "ok"]
    together = toy_classifier.decide(texts)
    for text, decision in zip(texts, together, strict=True):
        (alone,) = toy_classifier.decide([text])
        assert alone.labels == decision.labels
        assert alone.unscored == decision.unscored
    assert [decision.unscored for decision in together] == [None, "empty", None, None, None, None]


def test_no_texts_give_no_decisions(toy_classifier: api.Classifier) -> None:
    assert toy_classifier.decide([]) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("a" * 100_001, "too_long"),
        ("ab\0cd", "binary"),
        ("\x01\x02\x03abcd", "binary"),
        ("caf\udce9", "bad_encoding"),
    ],
)
def test_unscorable_text_is_unscored_with_a_reason(toy_classifier: api.Classifier, text: str, reason: str) -> None:
    (decision,) = toy_classifier.decide([text])
    assert decision.unscored == reason
    assert decision.labels == {}
    assert decision.probabilities == {}


@pytest.mark.parametrize("text", ["a\r\n\tb\n\n\n", "🙂", "ب", "\u200b.\u200b", "<|end|><|assistant|>", "a " * 2000])
def test_odd_text_is_scored(toy_classifier: api.Classifier, text: str) -> None:
    assert toy_classifier.decide([text])[0].unscored is None


def test_rules_speak_last(toy_classifier: api.Classifier) -> None:
    blocked, allowed, hinted = toy_classifier.decide(["a blockword", "allowword", "a hintword"])
    assert (blocked.labels["risk"], blocked.labels["emotion"], blocked.risk_floor) == (
        "high",
        "self_harm_high",
        "high",
    )
    assert (allowed.labels["risk"], allowed.labels["emotion"]) == ("none", "positive")
    assert [item.kind for item in hinted.evidence] == ["hint"]
    evidence = blocked.evidence[0]
    assert "a blockword"[evidence.start : evidence.end] == "blockword"


def break_arm(
    classifier: api.Classifier, monkeypatch: pytest.MonkeyPatch, arm: str, answer: Callable[[str, ArmScores], ArmScores]
) -> None:
    """Pass every score of an arm through `answer`, which may raise as torch does."""
    real: Any = getattr(classifier._arms, arm)
    score = real.score

    def broken(texts: Sequence[str], *rest: Any) -> list[ArmScores]:
        return [answer(text, scores) for text, scores in zip(texts, score(texts, *rest), strict=True)]

    monkeypatch.setattr(real, "score", broken)


def fail(text: str, scores: ArmScores) -> ArmScores:
    if "poison" in text:
        raise RuntimeError("out of memory")
    return scores


def spoil(text: str, scores: ArmScores) -> ArmScores:
    if "poison" not in text:
        return scores
    return replace(scores, probabilities={**scores.probabilities, "risk": dict.fromkeys(["none", "low"], float("nan"))})


@pytest.mark.parametrize("harm", [fail, spoil])
def test_failing_arm_leaves_the_other(
    toy_classifier: api.Classifier, monkeypatch: pytest.MonkeyPatch, harm: Callable[[str, ArmScores], ArmScores]
) -> None:
    break_arm(toy_classifier, monkeypatch, "bert", harm)
    poisoned, good = toy_classifier.decide(["poison", "good"])
    assert [arm.arm for arm in poisoned.arms] == ["llm"]
    assert poisoned.unscored is None
    assert [arm.arm for arm in good.arms] == ["bert", "llm"]


def test_both_arms_failing_is_unscored_and_keeps_the_evidence(
    toy_classifier: api.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_arm(toy_classifier, monkeypatch, "bert", fail)
    break_arm(toy_classifier, monkeypatch, "llm", spoil)
    poisoned, good = toy_classifier.decide(["poison blockword", "good"])
    assert poisoned.unscored == "arms_failed"
    assert poisoned.labels == {}
    assert poisoned.risk_floor == "high"
    assert good.unscored is None


def test_cascade_asks_the_llm_only_where_needed(toy_dir: Path, toy_bundle: Path, tmp_path: Path) -> None:
    build_bundle(tmp_path / "c", replace(BundleParts.from_bundle(toy_bundle, name="cascade"), policy="cascade"))
    classifier = api.load(tmp_path / "c", base_models=toy_dir / "base_models")
    sure, hinted = classifier.decide(["the dog ate my lunch", "hintword"])
    assert [arm.arm for arm in sure.arms] == ["bert"]
    assert [arm.arm for arm in hinted.arms] == ["bert", "llm"]


def test_bundle_of_one_arm_decides(toy_dir: Path, toy_bundle: Path, tmp_path: Path) -> None:
    parts = BundleParts.from_bundle(toy_bundle, name="one")
    for name, changed in (("bert", replace(parts, llm=None)), ("llm", replace(parts, bert=None))):
        build_bundle(tmp_path / name, changed)
        (decision,) = api.load(tmp_path / name, base_models=toy_dir / "base_models").decide(["ok"])
        assert [arm.arm for arm in decision.arms] == [name]
        assert decision.unscored is None


def test_golden_check_names_what_is_wrong(toy_classifier: api.Classifier, toy_dir: Path, tmp_path: Path) -> None:
    assert api.check_golden(toy_classifier) == []
    api.check_golden_or_raise(toy_classifier)
    bases = toy_dir / "base_models"
    part = toys.make_bert_part(
        tmp_path / "bert", bases / toys.TOY_BERT, answers={"I went to the store": {"emotion": "sadness"}}
    )
    parts = replace(BundleParts.from_bundle(toy_dir / "toy-1", name="wrong"), bert=part)
    build_bundle(tmp_path / "wrong", parts)
    wrong = api.load(tmp_path / "wrong", base_models=bases)
    assert api.check_golden(wrong) == [api.GoldenFailure("I went to the store", "emotion", "neutral", "sadness")]
    with pytest.raises(GoldenCheckFailed, match="statement 5: emotion is sadness, must be neutral"):
        api.check_golden_or_raise(wrong)


def test_closed_classifier_gives_unscored(toy_dir: Path, toy_bundle: Path) -> None:
    classifier = api.load(toy_bundle, base_models=toy_dir / "base_models")
    classifier.close()
    assert classifier.decide(["ok"])[0].unscored == "arms_failed"


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    (tmp_path / "releases").mkdir()
    return tmp_path / "releases"


def write_pointer(releases: Path, bundle: Path, sha256: str) -> None:
    pointer = {"release": "r-7", "bundle": str(bundle), "manifest_sha256": sha256}
    (releases / "serving.json").write_text(json.dumps(pointer))


def test_hybrid_classifier_serves_what_the_pointer_names(
    releases: Path, toy_bundle: Path, toy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEED_BASE_MODELS", str(toy_dir / "base_models"))
    write_pointer(releases, toy_bundle, manifest_sha256(toy_bundle))
    assert api.serving_bundle() == ("r-7", toy_bundle)
    hybrid = api.HybridClassifier()
    answer = hybrid.classify("I will marry her")
    assert (answer["emotion"], answer["risk"], answer["release"]) == ("positive", "none", "r-7")
    assert set(answer) >= {"emotion", "sentiment", "stress", "risk", "probabilities", "evidence"}
    empty = hybrid.classify(" ")
    assert (empty["risk"], empty["unscored"]) == (None, "empty")


def test_pointer_to_another_bundle_than_published_is_refused(releases: Path, toy_bundle: Path) -> None:
    write_pointer(releases, toy_bundle, "0" * 64)
    with pytest.raises(BundleError, match="not the published one"):
        api.serving_bundle()


def test_broken_pointer_is_refused(releases: Path) -> None:
    (releases / "serving.json").write_text("{}")
    with pytest.raises(BundleError, match=r"serving\.json cannot be read"):
        api.serving_bundle()
