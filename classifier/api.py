"""The door to the classifier: text in, Decision out. Importing it loads no torch; `load` does."""

import json
import logging
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from classifier.base_models import find_base, var_dir, weights_sha256
from classifier.bundle import (
    ArmPart,
    Manifest,
    manifest_sha256,
    read_calibration,
    read_manifest,
    read_schema,
    read_text,
    verify_bundle,
)
from classifier.errors import (
    BaseModelError,
    BundleError,
    ClassifierError,
    GoldenCheckFailed,
    ReleaseConflict,
    RuleError,
    SchemaError,
)
from classifier.hybrid import Calibration, decide_labels, is_usable, needs_llm
from classifier.rules.engine import RuleSet, RuleVerdict
from classifier.schema import GOLDEN_STATEMENTS, Schema, load_schema
from classifier.types import ArmScores, Decision, Evidence, Labels

if TYPE_CHECKING:
    from classifier.bert import EncoderArm
    from classifier.llm import LlmArm
    from classifier.remote_llm import RemoteLlm

__all__ = [
    "GOLDEN_STATEMENTS",
    "ArmScores",
    "BaseModelError",
    "BundleError",
    "Classifier",
    "ClassifierError",
    "Decision",
    "Evidence",
    "GoldenCheckFailed",
    "GoldenFailure",
    "HybridClassifier",
    "ReleaseConflict",
    "RuleError",
    "SchemaError",
    "check_golden",
    "check_golden_or_raise",
    "find_unscorable",
    "load",
    "load_schema",
    "serving_bundle",
    "var_dir",
]

log = logging.getLogger(__name__)

ScoreIndices = Callable[[Sequence[int]], Sequence[ArmScores | None]]

MAX_CHARACTERS = 100_000
CONTROL_SHARE = 0.3
"""From this share of control characters on a text is taken for binary data."""

STARTER_BUNDLE = Path(__file__).resolve().parents[1] / "releases" / "starter-2"

EMPTY, TOO_LONG, BINARY, BAD_ENCODING, ARMS_FAILED = "empty", "too_long", "binary", "bad_encoding", "arms_failed"
UNCERTAIN = "uncertain"
"""Reason codes of an unscored Decision."""


@dataclass(frozen=True, slots=True)
class GoldenFailure:
    text: str
    dimension: str
    expected: str
    got: str


class Classifier:
    """One loaded bundle; immutable. Built by `load`. Not thread-safe: one thread decides at a time."""

    def __init__(
        self,
        manifest: Manifest,
        release: str,
        schema: Schema,
        rules: RuleSet,
        calibration: Calibration,
        arms: "Arms",
    ) -> None:
        self.manifest = manifest
        self.release = release
        self.schema = schema
        self._rules = rules
        self._calibration = calibration
        self._arms = arms

    def decide(self, texts: Sequence[str]) -> list[Decision]:
        """Same order. Never raises for a text: one that cannot be scored gets `Decision.unscored`."""
        reasons = [find_unscorable(text) for text in texts]
        scorable = [index for index, reason in enumerate(reasons) if reason is None]
        decided = iter(self._decide_scorable([texts[index] for index in scorable]))
        return [next(decided) if reason is None else Decision(self.release, unscored=reason) for reason in reasons]

    @property
    def calibration(self) -> Calibration:
        return self._calibration

    def apply_rules(self, text: str) -> RuleVerdict:
        return self._rules.apply(text)

    def score_arm(
        self, arm: Literal["bert", "llm"], texts: Sequence[str], drafts: Sequence[Labels]
    ) -> list[ArmScores | None]:
        """One arm by itself on every text, whatever the policy: for measuring. None where it gave no usable scores.

        `drafts`, for the LLM: what it verifies; they change the time taken, never the answer.
        """
        found = self._arms.score_bert(texts) if arm == "bert" else self._arms.score_llm(texts, drafts)
        return self._keep_usable(found)

    def close(self) -> None:
        """Let go of the arms, so that their memory can be used by the next bundle."""
        if self._arms.llm is not None:
            self._arms.llm.close()
        self._arms = Arms(None, None)

    def _decide_scorable(self, texts: Sequence[str]) -> list[Decision]:
        verdicts: list[RuleVerdict] = []
        rules_ms: list[float] = []
        for text in texts:
            started = time.perf_counter()
            verdicts.append(self._rules.apply(text))
            rules_ms.append((time.perf_counter() - started) * 1000)
        bert = self._keep_usable(self._arms.score_bert(texts))
        asked = [index for index in range(len(texts)) if self._is_llm_asked(bert[index], verdicts[index])]
        drafts = [self._draft(bert[index]) for index in asked]
        answers = self._keep_usable(self._arms.score_llm([texts[index] for index in asked], drafts))
        llm = dict(zip(asked, answers, strict=True))
        return [
            self._decide_one(verdicts[index], rules_ms[index], bert[index], llm.get(index))
            for index in range(len(texts))
        ]

    def _is_llm_asked(self, bert: ArmScores | None, verdict: RuleVerdict) -> bool:
        return needs_llm(bert, verdict, self._calibration, self.manifest.policy, self.schema)

    def _draft(self, bert: ArmScores | None) -> Labels:
        if bert is None:
            return {}
        return {name: max(row, key=row.__getitem__) for name, row in bert.probabilities.items()}

    def _keep_usable(self, scores: Sequence[ArmScores | None]) -> list[ArmScores | None]:
        return [score if is_usable(score, self.schema) else None for score in scores]

    def _decide_one(
        self, verdict: RuleVerdict, rules_ms: float, bert: ArmScores | None, llm: ArmScores | None
    ) -> Decision:
        arms = tuple(arm for arm in (bert, llm) if arm is not None)
        outcome = decide_labels({arm.arm: arm for arm in arms}, verdict, self._calibration, self.schema)
        return Decision(
            release=self.release,
            labels=outcome.labels,
            probabilities=outcome.probabilities,
            arms=arms,
            evidence=verdict.evidence,
            risk_floor=verdict.risk_floor,
            latency_ms={"rules": rules_ms} | {arm.arm: arm.latency_ms for arm in arms},
            unscored=UNCERTAIN if outcome.is_withheld else None if outcome.labels else ARMS_FAILED,
        )


@dataclass(frozen=True, slots=True)
class Arms:
    bert: "EncoderArm | None"
    llm: "LlmArm | RemoteLlm | None"

    def score_bert(self, texts: Sequence[str]) -> list[ArmScores | None]:
        arm = self.bert
        if arm is None:
            return [None] * len(texts)
        return _score_apart("bert", range(len(texts)), lambda indices: arm.score([texts[index] for index in indices]))

    def score_llm(self, texts: Sequence[str], drafts: Sequence[Labels]) -> list[ArmScores | None]:
        arm = self.llm
        if arm is None:
            return [None] * len(texts)
        return _score_apart(
            "llm",
            range(len(texts)),
            lambda indices: arm.score([texts[index] for index in indices], [drafts[index] for index in indices]),
        )


def _score_apart(arm: str, indices: Sequence[int], score: ScoreIndices) -> list[ArmScores | None]:
    """All at once; when that fails, one by one, so that a text that breaks the arm does not take others with it."""
    if not indices:
        return []
    try:
        return list(score(indices))
    except (RuntimeError, ValueError, ArithmeticError) as error:  # torch raises RuntimeError, out of memory included
        log.warning("the %s arm failed on %d texts: %s", arm, len(indices), type(error).__name__)
    if len(indices) == 1:
        return [None]
    return [_score_apart(arm, [index], score)[0] for index in indices]


def find_unscorable(text: str) -> str | None:
    """The reason code why this text goes to a human unscored, or None."""
    if len(text) > MAX_CHARACTERS:
        return TOO_LONG
    if not text.strip():
        return EMPTY
    if "\0" in text or _control_share(text) >= CONTROL_SHARE:
        return BINARY
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: what is left of bytes that were not UTF-8
        return BAD_ENCODING
    return None


def _control_share(text: str) -> float:
    return sum(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in text) / len(text)


def load(
    bundle: Path, *, release: str | None = None, base_models: Path | None = None, verify: bool = True
) -> Classifier:
    """Load a bundle and the base models it names.

    `release` goes into every Decision, by default the bundle's own name. `verify` hashes every file of the bundle and
    the base weights. Raises BundleError or BaseModelError.
    """
    manifest = verify_bundle(bundle) if verify else read_manifest(bundle)
    schema = _check_schema(bundle, manifest)
    return Classifier(
        manifest=manifest,
        release=release or manifest.name,
        schema=schema,
        rules=_load_rules(bundle, manifest),
        calibration=read_calibration(bundle),
        arms=_load_arms(bundle, manifest, schema, base_models, verify),
    )


def _load_rules(bundle: Path, manifest: Manifest) -> RuleSet:
    try:
        return RuleSet.load(bundle / "rules")
    except RuleError as error:
        raise BundleError(f"the rules of the bundle {manifest.name} cannot be loaded: {error}") from error


def _check_schema(bundle: Path, manifest: Manifest) -> Schema:
    """The bundle's schema; it must name the same labels as ours, since everything stored is in those."""
    schema, ours = read_schema(bundle), load_schema()
    if [(item.name, item.names) for item in schema.dimensions] != [(item.name, item.names) for item in ours.dimensions]:
        raise BundleError(
            f"the bundle {manifest.name} is made for label schema {schema.version}, this version uses {ours.version}"
        )
    return schema


def _load_arms(bundle: Path, manifest: Manifest, schema: Schema, base_models: Path | None, verify: bool) -> Arms:
    # Here and not above: these import torch.
    import transformers

    from classifier.bert_onnx import load_bert
    from classifier.llm_open import open_llm

    hf_logging: Any = transformers.utils.logging
    hf_logging.disable_progress_bar()
    bert = llm = None
    if manifest.bert is not None:
        bert = load_bert(bundle / "bert", _find_checked_base(manifest.bert, base_models, verify), schema)
    if manifest.llm is not None:
        part = manifest.llm
        llm = open_llm(
            bundle / "llm",
            f"{part.base}-{part.version}",
            schema,
            read_text(bundle, "prompt.txt"),
            find_weights=partial(_find_checked_base, part, base_models, verify),
            find_tokenizer=partial(find_base, part.base, base_models),
        )
    return Arms(bert, llm)


def _find_checked_base(part: ArmPart, base_models: Path | None, verify: bool) -> Path:
    base = find_base(part.base, base_models)
    if weights_sha256(base, trust_manifest=not verify) != part.base_sha256:
        raise BundleError(
            f"the weights of the base model {part.base} are not those the bundle was made for (SHA-256 differs): "
            "fetch the base model again, or train a bundle on this one"
        )
    return base


def serving_bundle() -> tuple[str, Path]:
    """Release name and folder of the bundle that serves; the starter bundle before any release was published.

    Raises BundleError where the pointer cannot be read, or points to a bundle other than the one published.
    """
    releases = var_dir() / "releases"
    pointer = releases / "serving.json"
    if not pointer.is_file():
        return read_manifest(STARTER_BUNDLE).name, STARTER_BUNDLE
    try:
        raw: Any = json.loads(pointer.read_text(encoding="utf-8"))
        release, bundle, expected = str(raw["release"]), releases / raw["bundle"], raw["manifest_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the release pointer {pointer.name} cannot be read: {error}") from error
    if manifest_sha256(bundle) != expected:
        raise BundleError(f"the bundle of release {release} is not the published one: its manifest's SHA-256 differs")
    return release, bundle


def check_golden(classifier: Classifier) -> list[GoldenFailure]:
    """What a bundle gets wrong of the five statements; empty where all is well."""
    failures = []
    decisions = classifier.decide([text for text, _, _ in GOLDEN_STATEMENTS])
    for (text, emotion, risk), decision in zip(GOLDEN_STATEMENTS, decisions, strict=True):
        for dimension, expected in (("emotion", emotion), ("risk", risk)):
            got = decision.labels.get(dimension, f"unscored ({decision.unscored})")
            if got != expected:
                failures.append(GoldenFailure(text, dimension, expected, got))
    return failures


def check_golden_or_raise(classifier: Classifier) -> None:
    """Raises GoldenCheckFailed naming every statement that came out wrong, by its number."""
    numbers = {text: number for number, (text, _, _) in enumerate(GOLDEN_STATEMENTS, 1)}
    found = [
        f"statement {numbers[item.text]}: {item.dimension} is {item.got}, must be {item.expected}"
        for item in check_golden(classifier)
    ]
    if found:
        raise GoldenCheckFailed(f"release {classifier.release}: {'; '.join(found)}")


class HybridClassifier:
    """The one-line door: `HybridClassifier().classify(text)`. Loads the serving bundle, or the one given."""

    def __init__(self, bundle: Path | None = None) -> None:
        if bundle is None:
            release, bundle = serving_bundle()
            self._classifier = load(bundle, release=release)
        else:
            self._classifier = load(bundle)

    def classify(self, text: str) -> dict[str, Any]:
        """Labels under `emotion`, `sentiment`, `stress`, `risk`; they are None where `unscored` says why."""
        decision = self._classifier.decide([text])[0].as_dict()
        labels: Mapping[str, str] = decision["labels"]
        return {
            **{name: labels.get(name) for name in self._classifier.schema.names},
            "probabilities": decision["probabilities"],
            "evidence": decision["evidence"],
            "release": decision["release"],
            "unscored": decision["unscored"],
        }
