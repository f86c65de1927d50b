"""Every text once through the rules and through each arm alone; whatever a policy would ask is derived from that."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from classifier.api import Classifier, find_unscorable
from classifier.rules.engine import RuleVerdict
from classifier.types import ArmScores, Labels

BATCH_TEXTS = 16
Arm = Literal["bert", "llm"]
Report = Callable[[str, int, int], None]
"""Stage, done, total; may raise to stop between two batches."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the rules and each arm say of one text. An arm is missing where it gave no usable scores."""

    verdict: RuleVerdict
    arms: Mapping[str, ArmScores]


class ScoreCache:
    """Scores of one arm part by the hash of the text, appended as they come: an interrupted run goes on.

    Without a folder they live in memory alone. The files hold no text.
    """

    def __init__(self, folder: Path | None, arm: Arm, key: str) -> None:
        self._arm = arm
        self._found: dict[str, ArmScores | None] = {}
        self._path = folder / f"{arm}-{key}.jsonl" if folder else None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._found = dict(self._read(self._path))

    def _read(self, path: Path) -> Iterator[tuple[str, ArmScores | None]]:
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                raw: Any = json.loads(line)
                row = raw["probabilities"]
                yield raw["text"], ArmScores(self._arm, row, float(raw["latency_ms"])) if row else None
            except (ValueError, KeyError, TypeError):
                continue  # a killed run may leave half a line

    def __contains__(self, text: str) -> bool:
        return hash_text(text) in self._found

    def __getitem__(self, text: str) -> ArmScores | None:
        return self._found[hash_text(text)]

    def add(self, texts: Sequence[str], scores: Sequence[ArmScores | None]) -> None:
        fresh = [(hash_text(text), score) for text, score in zip(texts, scores, strict=True)]
        self._found.update(fresh)
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            for key, score in fresh:
                row = score.probabilities if score else None
                # A line of its own even after half a line of a killed run.
                line = {"text": key, "probabilities": row, "latency_ms": score.latency_ms if score else 0.0}
                file.write(f"\n{json.dumps(line)}\n")


def hash_text(text: str) -> str:
    """Of the exact text: an arm may answer differently to other spacing."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def part_key(classifier: Classifier, arm: Arm) -> str:
    """Of everything that an arm's scores depend on."""
    manifest = classifier.manifest
    part = manifest.bert if arm == "bert" else manifest.llm
    assert part is not None
    prompt = manifest.files.get("prompt.txt", "") if arm == "llm" else ""
    seen = f"{part.version} {part.base_sha256} {prompt} {manifest.files.get('schema.toml', '')}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def list_arms(classifier: Classifier) -> list[Arm]:
    manifest = classifier.manifest
    parts: list[tuple[Arm, object]] = [("bert", manifest.bert), ("llm", manifest.llm)]
    return [arm for arm, part in parts if part is not None]


def score_texts(
    classifier: Classifier, texts: Sequence[str], *, cache: Path | None = None, report: Report | None = None
) -> list[Scored]:
    """In order. A text that no arm may read (empty, binary …) has no arms."""
    readable = list(dict.fromkeys(text for text in texts if find_unscorable(text) is None))
    found: dict[Arm, ScoreCache] = {}
    for arm in list_arms(classifier):
        found[arm] = ScoreCache(cache, arm, part_key(classifier, arm))
        drafts = found.get("bert") if arm == "llm" else None
        _fill(classifier, arm, found[arm], readable, drafts, report)
    verdicts = {text: classifier.apply_rules(text) for text in readable}
    return [
        Scored(
            verdicts.get(text, RuleVerdict()),
            {arm: score for arm, known in found.items() if text in known and (score := known[text]) is not None},
        )
        for text in texts
    ]


def _fill(
    classifier: Classifier,
    arm: Arm,
    known: ScoreCache,
    texts: Sequence[str],
    drafts: ScoreCache | None,
    report: Report | None,
) -> None:
    missing = [text for text in texts if text not in known]
    for begin in range(0, len(missing), BATCH_TEXTS):
        batch = missing[begin : begin + BATCH_TEXTS]
        known.add(batch, classifier.score_arm(arm, batch, [_draft(drafts, text) for text in batch]))
        if report is not None:
            report(f"evaluate {arm.upper()} alone", begin + len(batch), len(missing))


def _draft(drafts: ScoreCache | None, text: str) -> Labels:
    scores = drafts[text] if drafts is not None else None
    if scores is None:
        return {}
    return {name: max(row, key=row.__getitem__) for name, row in scores.probabilities.items()}
