"""The texts that benches run on: a folder or file of labelled rows, or the bank."""

from pathlib import Path

from training.corpus.bank import read_bank
from training.corpus.rows import Row, RowError, text_key
from training.jobs.ablation import read_labelled


def read_texts(path: Path | None, limit: int) -> list[Row]:
    """`limit` rows, the same ones every time and in no order of length or label. Raises RowError.

    A folder: its `dev.jsonl` files, else all its `*.jsonl`. None: the bank, those rows first that nothing trains on.
    """
    if path is None:
        held_out = {True: [], False: []}  # type: dict[bool, list[Row]]
        for item in read_bank():
            held_out[item.split != "train"].append(item.row)
        return (_shuffle(held_out[True]) + _shuffle(held_out[False]))[:limit]
    files = [path]
    if path.is_dir():
        files = sorted(path.rglob("dev.jsonl")) or sorted(path.rglob("*.jsonl"))
    rows = {text_key(row.text): row for file in files for row in read_labelled(file)}
    if not rows:
        raise RowError(f"no rows in {path}")
    return _shuffle(list(rows.values()))[:limit]


def _shuffle(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: text_key(row.text))
