"""An immutable data set on disk: train, val and test rows with a manifest, in a folder named by its content hash.

Bank rows keep their side. Feedback is trained on, but for a tenth that is held out to measure with; a text that stands
in the bank as well stays on the bank's side, with the labels that people gave it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from classifier.schema import load_schema
from training.corpus.bank import BANK_PATH, BankRow, count_labels, read_bank
from training.corpus.build import golden_rows
from training.corpus.compile import CompileOptions, FeedbackRecord, compile_rows
from training.corpus.rows import SPLITS, Row, Split, split_of, text_key, write_rows

FEEDBACK_TEST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """`replay_rows`: bank rows trained on beside the feedback, so that nothing is forgotten; 0 = all."""

    feedback_weight: float = 3.0
    disagreement: Literal["soft", "majority"] = "soft"
    replay_rows: int = 2000


@dataclass(frozen=True, slots=True)
class FrozenRows:
    """A snapshot on disk."""

    folder: Path
    content_hash: str
    manifest: dict[str, Any]
    rows: int


def split_rows(feedback: Sequence[Row], bank: Sequence[BankRow], options: SnapshotOptions) -> dict[Split, list[Row]]:
    """No text stands in two splits. Pure: the same rows give the same splits in the same order."""
    sides = {text_key(item.row.text): item.split for item in bank}
    splits: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    answered: dict[str, Row] = {}
    for row in sorted(feedback, key=lambda item: item.id):
        # Spellings of one text (case, punctuation) count once: the first by id.
        answered.setdefault(text_key(row.text), row)
    for key, row in answered.items():
        splits[sides.get(key) or split_of(key, val_share=0, test_share=FEEDBACK_TEST_SHARE)].append(row)
    kept = [item for item in sorted(bank, key=lambda item: item.row.id) if text_key(item.row.text) not in answered]
    for split in ("val", "test"):
        splits[split] += [item.row for item in kept if item.split == split]
    replay = [item.row for item in kept if item.split == "train"]
    known = {text_key(row.text) for rows in splits.values() for row in rows} | {text_key(row.text) for row in replay}
    golden = [row for row in golden_rows() if text_key(row.text) not in known]
    splits["train"] += golden + (replay[: options.replay_rows] if options.replay_rows else replay)
    return splits


def freeze(
    records: Sequence[FeedbackRecord], options: SnapshotOptions, target: Path, bank: Path = BANK_PATH
) -> FrozenRows:
    """Compile, split and write below `target`. A snapshot of the same content is left as it is."""
    compiled = compile_rows(records, CompileOptions(options.feedback_weight, options.disagreement))
    splits = split_rows(compiled, read_bank(bank), options)
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".freeze-", dir=target))
    try:
        for split, rows in splits.items():
            write_rows(work / f"{split}.jsonl", rows)
        content_hash = _hash_splits(work)
        manifest = _describe(splits, records, options, content_hash)
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        folder = target / content_hash[:16]
        work.chmod(0o755)
        if not (folder / "manifest.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return FrozenRows(folder, content_hash, manifest, sum(map(len, splits.values())))


def _hash_splits(folder: Path) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(hashlib.sha256((folder / f"{split}.jsonl").read_bytes()).digest())
    return digest.hexdigest()


def _describe(
    splits: dict[Split, list[Row]], records: Sequence[FeedbackRecord], options: SnapshotOptions, content_hash: str
) -> dict[str, Any]:
    return {
        "format": 1,
        "content_hash": content_hash,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "schema_version": load_schema().version,
        "options": asdict(options),
        "records": len(records),
        "verdicts": dict(sorted(Counter(record.verdict for record in records).items())),
        "guideline_versions": sorted({record.guideline_version for record in records}),
        "annotators": len({record.annotator for record in records}),
        "rows": {split: len(rows) for split, rows in splits.items()},
        "feedback_rows": {split: sum(row.source == "feedback" for row in rows) for split, rows in splits.items()},
        "labels": {split: count_labels(rows) for split, rows in splits.items()},
    }


def parse_snapshot_options(raw: dict[str, Any]) -> SnapshotOptions:
    """Raises ValueError naming the option."""
    defaults = asdict(SnapshotOptions())
    if unknown := sorted(set(raw) - set(defaults)):
        raise ValueError(f"unknown snapshot option {unknown[0]!r}, expected some of {', '.join(defaults)}")
    for name, value in raw.items():
        expected = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if isinstance(value, bool) or not isinstance(value, expected):
            raise ValueError(f"{name} is {value!r}, expected a value like {defaults[name]!r}")
    options = replace(SnapshotOptions(), **raw)
    if options.disagreement not in ("soft", "majority"):
        raise ValueError(f"disagreement is {options.disagreement!r}, expected soft or majority")
    if not 0 < options.feedback_weight <= 100:
        raise ValueError(f"feedback_weight is {options.feedback_weight}, expected more than 0 and at most 100")
    if options.replay_rows < 0:
        raise ValueError(f"replay_rows is {options.replay_rows}, expected 0 (all) or more")
    return options
