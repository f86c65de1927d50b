"""The bank: our own texts, written and labelled by hand, one file for a group of functionalities (F01 to F24)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import SchemaError
from classifier.schema import load_schema
from training.corpus.rows import Row, RowError, Split, iter_jsonl, split_of, text_key

BANK_PATH = Path(__file__).with_name("bank")


@dataclass(frozen=True, slots=True)
class BankRow:
    """Fully labelled. `pair` joins the two sides of a minimal pair."""

    row: Row
    functionality: str
    pair: str | None
    split: Split


def read_bank(path: Path = BANK_PATH) -> list[BankRow]:
    """Every row of every file, repeats of a text left out. Raises RowError naming file and line."""
    rows: dict[str, BankRow] = {}
    for file in sorted(path.glob("*.jsonl")):
        for where, raw in iter_jsonl(file):
            try:
                labels = load_schema().check_labels(raw["labels"])
                text, functionality = str(raw["text"]), str(raw["functionality"])
            except KeyError as error:
                raise RowError(f"{where}: lacks {error.args[0]!r}") from error
            except (SchemaError, TypeError) as error:
                raise RowError(f"{where}: {error}") from error
            key, pair = text_key(text), raw.get("pair")
            row = Row(f"bank-{key[:16]}", text, labels, source=f"bank:{functionality}")
            if key not in rows or (pair and not rows[key].pair):
                # Of a text written twice the side of a pair is kept: its twin must stay with it.
                rows[key] = BankRow(row, functionality, pair, _side(key, pair))
    if not rows:
        raise RowError(f"no *.jsonl with rows in {path}")
    return list(rows.values())


def _side(key: str, pair: str | None) -> Split:
    # The two sides of a pair differ by a word or two: apart, one would give the other away.
    return split_of(f"pair:{pair}" if pair else key)


def count_labels(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Dimension -> label (sets and distributions spelled out) -> number of rows."""
    counts: dict[str, dict[str, int]] = {name: {} for name in load_schema().names}
    for row in rows:
        for name, label in row.labels.items():
            spelled = label if isinstance(label, str) else "soft " + "/".join(label)
            counts[name][spelled] = counts[name].get(spelled, 0) + 1
    return counts
