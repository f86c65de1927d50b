"""A snapshot as a folder of Hugging Face `datasets`, and such a folder as a snapshot. Imports no torch.

`load_from_disk(DIR)` gives the splits train, val and test, `load_from_disk(DIR/preferences/kto)` the kto rows, likewise
pairs and rewards. A row has a column for each dimension (a value, a set `medium|high`, or null where it is unknown or
soft) and `soft_labels`, JSON of the dimensions that hold a distribution.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from classifier.schema import load_schema
from training.corpus.bank import count_labels
from training.corpus.held_out import read_held_out
from training.corpus.manifest import FORMAT
from training.corpus.preferences import (
    KTO_FILE,
    PAIRS_FILE,
    REWARDS_FILE,
    KtoRow,
    PairRow,
    RewardRow,
    read_preferences,
    write_preferences,
)
from training.corpus.rows import SPLITS, Row, RowError, Split, read_rows, text_key, write_rows
from training.corpus.snapshot import MANIFEST_FILE, FrozenRows, hash_data, keep, new_folder, write_manifest
from training.corpus.splits import SIDES_FILE

PREFERENCES = "preferences"
NESTED = ("labels", "chosen", "rejected", "rewards")
"""Columns of preference rows that hold JSON: rewards differ in their values from row to row."""


class Form(NamedTuple):
    """A file of preference rows and the class of its rows."""

    file: str
    row: Callable[[Mapping[str, Any], str], KtoRow | PairRow | RewardRow]
    type: type[KtoRow] | type[PairRow] | type[RewardRow]


FORMS = (
    Form(KTO_FILE, KtoRow.from_dict, KtoRow),
    Form(PAIRS_FILE, PairRow.from_dict, PairRow),
    Form(REWARDS_FILE, RewardRow.from_dict, RewardRow),
)


def export_folder(snapshot: Path, out: Path) -> dict[str, int]:
    """Rows written of each part. Raises RowError, or OSError where `out` is taken."""
    # Here and not above, as below: pyarrow and pandas come along, and nothing else here needs them.
    from datasets import Dataset, DatasetDict

    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: name a new folder")
    splits = {split: read_rows(snapshot / f"{split}.jsonl") for split in SPLITS}
    columns = _row_columns()
    parts = {split: Dataset.from_list([_flatten_row(row) for row in rows], columns) for split, rows in splits.items()}
    DatasetDict(parts).save_to_disk(out)
    counts: dict[str, int] = {split: len(rows) for split, rows in splits.items()}
    for form in FORMS:
        rows: list[Any] = read_preferences(snapshot / form.file, form.type)
        if rows:
            name = Path(form.file).stem
            Dataset.from_list([_pack(asdict(row)) for row in rows]).save_to_disk(out / PREFERENCES / name)
            counts[name] = len(rows)
    (out / MANIFEST_FILE).write_bytes((snapshot / MANIFEST_FILE).read_bytes())
    return counts


def import_folder(source: Path, target: Path) -> FrozenRows:
    """A snapshot below `target` of the folder's rows as they stand, each on its own side.

    Raises RowError naming part and row where one does not fit, stands in two splits, or is an evaluation text.
    """
    splits = {split: _load(source, split, _unflatten_row) for split in SPLITS}
    _refuse_leaks(splits)
    preferences = {form.file: _load(source, f"{PREFERENCES}/{Path(form.file).stem}", form.row) for form in FORMS}
    trained = {text_key(row.text) for row in splits["train"]}
    sides = {text_key(row.text): split for split, rows in splits.items() for row in rows if row.source == "feedback"}
    with new_folder(target) as work:
        for split, rows in splits.items():
            write_rows(work / f"{split}.jsonl", rows)
        for file, preferred in preferences.items():
            held_out = next((row.id for row in preferred if sides.get(text_key(row.text)) in ("val", "test")), None)
            if held_out is not None:
                raise RowError(f"{file}: row {held_out} is of a text that is held out: leave it out")
            if preferred:
                write_preferences(work / file, preferred)
                sides |= {text_key(row.text): "train" for row in preferred if text_key(row.text) not in trained}
        (work / SIDES_FILE).write_text(json.dumps(sides, sort_keys=True) + "\n", encoding="utf-8")
        manifest = _describe(splits, preferences, source.name) | {"content_hash": hash_data(work)}
        write_manifest(work, manifest)
        return keep(work, target, manifest)


def _row_columns() -> Any:
    from datasets import Features, Value

    words = ("id", "text", *load_schema().names, "soft_labels", "source")
    return Features({name: Value("string") for name in words} | {"weight": Value("float64")})


def _flatten_row(row: Row) -> dict[str, Any]:
    plain = {name: label if isinstance(label := row.labels.get(name), str) else None for name in load_schema().names}
    soft = {name: dict(label) for name, label in row.labels.items() if not isinstance(label, str)}
    rest = {"id": row.id, "text": row.text, "source": row.source, "weight": row.weight}
    return rest | plain | {"soft_labels": json.dumps(soft) if soft else None}


def _unflatten_row(raw: Mapping[str, Any], where: str) -> Row:
    """Columns beside `text` and the dimensions may lack: other people's folders have none of ours."""
    labels = {name: raw[name] for name in load_schema().names if raw.get(name)}
    try:
        labels |= json.loads(raw.get("soft_labels") or "{}")
    except (TypeError, ValueError) as error:
        raise RowError(f"{where}: soft_labels must be a JSON object") from error
    weight = raw.get("weight")
    rest = {"id": raw.get("id"), "text": raw.get("text"), "source": raw.get("source") or ""}
    return Row.from_dict(rest | {"labels": labels, "weight": 1.0 if weight is None else weight}, where)


def _pack(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if name in NESTED else value for name, value in row.items()}


def _unpack(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.loads(value) if name in NESTED and isinstance(value, str) else value for name, value in row.items()
    }


AnyRow = TypeVar("AnyRow")


def _load(source: Path, part: str, form: Callable[[Mapping[str, Any], str], AnyRow]) -> list[AnyRow]:
    """Empty where the folder has no such part, which a set of rows must not be."""
    from datasets import load_from_disk

    folder = source / part
    if not folder.is_dir():
        if part == "train":
            raise RowError(f"{source} has no split train: save a DatasetDict of train, val and test there")
        return []
    table: Sequence[Mapping[str, Any]] = load_from_disk(folder)
    return [form(_unpack(raw), f"{part} row {number}") for number, raw in enumerate(table, 1)]


def _refuse_leaks(splits: Mapping[Split, Sequence[Row]]) -> None:
    seen: dict[str, str] = {}
    for split, rows in splits.items():
        for number, row in enumerate(rows, 1):
            key, where = text_key(row.text), f"{split} row {number}"
            if key in seen:
                raise RowError(f"{where} has the text of {seen[key]}: keep it on one side, once")
            if key in read_held_out() and row.source != "golden":
                raise RowError(f"{where} is a text of an evaluation set: leave it out")
            seen[key] = where


def _describe(
    splits: Mapping[Split, Sequence[Row]], preferences: Mapping[str, Sequence[Any]], name: str
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema_version": load_schema().version,
        "imported_from": name,
        "rows": {split: len(rows) for split, rows in splits.items()},
        "feedback_rows": {split: sum(row.source == "feedback" for row in rows) for split, rows in splits.items()},
        "preference_rows": {Path(file).stem: len(rows) for file, rows in preferences.items()},
        "labels": {split: count_labels(rows) for split, rows in splits.items()},
    }
