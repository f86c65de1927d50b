"""An immutable data set on disk: label rows, preference rows and a manifest, in a folder named by its content hash.

`draft` decides what is in it, `preview` describes it, `freeze` writes it. Preference rows are of the texts trained on
alone, so that what is held out stays unseen by every job.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from training.corpus.annotators import Panel
from training.corpus.bank import BANK_PATH, BankRow, read_bank
from training.corpus.compile import CompileOptions, FeedbackRecord, JudgedText, compile_feedback
from training.corpus.held_out import read_held_out
from training.corpus.manifest import describe
from training.corpus.preferences import KTO_FILE, PAIRS_FILE, REWARDS_FILE, write_preferences
from training.corpus.rows import SPLITS, Row, Split, text_key, write_rows
from training.corpus.splits import SIDES_FILE, place_feedback, split_rows
from training.corpus.verdict_rows import Preferences, compile_preferences

DATA_FILES = (*(f"{split}.jsonl" for split in SPLITS), KTO_FILE, PAIRS_FILE, REWARDS_FILE)
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """`replay_rows`: bank rows trained on beside the feedback, so that nothing is forgotten; 0 = all.

    `influence_cap`: see `compile.CompileOptions`; 1 = none.
    """

    feedback_weight: float = 3.0
    disagreement: Literal["soft", "majority"] = "soft"
    replay_rows: int = 2000
    influence_cap: float = 0.5


@dataclass(frozen=True, slots=True)
class Setting:
    """What a snapshot is made beside: the bank, the sides that texts had before, and the gold items."""

    bank: Path = BANK_PATH
    sides: Mapping[str, Split] = field(default_factory=dict)
    gold: Collection[str] = ()
    """Text keys."""


@dataclass(frozen=True, slots=True)
class Draft:
    """All that a snapshot will hold."""

    records: Sequence[FeedbackRecord]
    options: SnapshotOptions
    texts: Sequence[JudgedText]
    panel: Panel
    splits: dict[Split, list[Row]]
    preferences: Preferences
    sides: dict[str, Split]
    left_out: Counter[str]


@dataclass(frozen=True, slots=True)
class FrozenRows:
    """A snapshot on disk."""

    folder: Path
    content_hash: str
    manifest: dict[str, Any]
    rows: int


def draft(records: Sequence[FeedbackRecord], options: SnapshotOptions, setting: Setting) -> Draft:
    """Compile and split. The same records in any order give the same draft."""
    wanted = CompileOptions(options.feedback_weight, options.disagreement, options.influence_cap)
    excluded = {"held_out": read_held_out(), "gold": setting.gold}
    compiled = compile_feedback(records, wanted, excluded)
    bank = read_keyed_bank(setting.bank)
    keys = {text.id: text_key(text.text) for text in compiled.texts}
    rows = {keys[row.id]: row for row in compiled.rows}
    sides = _place({keys[text.id]: text for text in compiled.texts}, rows, bank, setting)
    splits = split_rows(rows, sides, bank, options.replay_rows)
    trained = [text for text in compiled.texts if sides[keys[text.id]] == "train"]
    preferences = compile_preferences(trained, compiled.panel)
    left_out = compiled.left_out + preferences.left_out
    left_out["held_out_side"] = len(compiled.texts) - len(trained)
    replay = sum(item.split == "train" and key not in rows for key, item in bank.items())
    left_out["bank_beyond_replay"] = max(replay - options.replay_rows, 0) if options.replay_rows else 0
    return Draft(
        records, options, compiled.texts, compiled.panel, splits, preferences, {**setting.sides, **sides}, +left_out
    )


def _place(
    texts: Mapping[str, JudgedText], rows: Mapping[str, Row], bank: Mapping[str, BankRow], setting: Setting
) -> dict[str, Split]:
    """The side of every text with feedback; of those without a label row too, for their preference rows."""
    known = {key: bank[key].split for key in texts if key in bank} | dict(setting.sides)
    placed = {key: rows.get(key) or Row(text.id, text.text, {}, "feedback") for key, text in texts.items()}
    return place_feedback(placed, {key: text.origin for key, text in texts.items()}, known)


@lru_cache(maxsize=1)
def read_keyed_bank(path: Path) -> Mapping[str, BankRow]:
    """The bank by text key, in the order of the ids; without evaluation texts, should one have slipped in.

    Kept: to read and key it takes a second, and it ships with the code.
    """
    keyed = {text_key(item.row.text): item for item in sorted(read_bank(path), key=lambda item: item.row.id)}
    return {key: item for key, item in keyed.items() if key not in read_held_out()}


def preview(records: Sequence[FeedbackRecord], options: SnapshotOptions, setting: Setting) -> dict[str, Any]:
    """The manifest that `freeze` would write. Nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="heed-preview-") as folder:
        drafted = draft(records, options, setting)
        write_data(drafted, Path(folder))
        return describe(drafted, hash_data(Path(folder)))


def freeze(
    records: Sequence[FeedbackRecord], options: SnapshotOptions, target: Path, setting: Setting | None = None
) -> FrozenRows:
    """Compile, split and write below `target`. A snapshot of the same content is left as it is."""
    drafted = draft(records, options, setting or Setting())
    with new_folder(target) as work:
        write_data(drafted, work)
        content_hash = hash_data(work)
        manifest = describe(drafted, content_hash)
        write_manifest(work, manifest)
        return keep(work, target, manifest)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, gone afterwards unless `keep` moved it into place."""
    target.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".freeze-", dir=target))
    try:
        work.chmod(0o755)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def keep(work: Path, target: Path, manifest: dict[str, Any]) -> FrozenRows:
    """Move a filled folder to the place that its content hash names."""
    content_hash = str(manifest["content_hash"])
    folder = target / content_hash[:16]
    if not (folder / MANIFEST_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(work, folder)
    return FrozenRows(folder, content_hash, manifest, sum(manifest["rows"].values()))


def write_data(drafted: Draft, folder: Path) -> None:
    for split, rows in drafted.splits.items():
        write_rows(folder / f"{split}.jsonl", rows)
    for name, preferred in (
        (KTO_FILE, drafted.preferences.kto),
        (PAIRS_FILE, drafted.preferences.pairs),
        (REWARDS_FILE, drafted.preferences.rewards),
    ):
        if preferred:
            write_preferences(folder / name, preferred)
    (folder / SIDES_FILE).write_text(json.dumps(drafted.sides, sort_keys=True) + "\n", encoding="utf-8")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def hash_data(folder: Path) -> str:
    """SHA-256 over the names and contents of the data files that are there."""
    digest = hashlib.sha256()
    for name in DATA_FILES:
        path = folder / name
        if path.is_file():
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


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
    if not 0 < options.influence_cap <= 1:
        raise ValueError(f"influence_cap is {options.influence_cap}, expected more than 0 and at most 1 (no cap)")
    return options
