"""A training row, the three forms a label may take, and the split of texts into train, val and test."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from classifier.errors import SchemaError
from classifier.schema import Dimension, load_schema

Label = str | Mapping[str, float]
"""A value (`medium`), a set of admissible values (`medium|high`) or a distribution (`{"medium": 0.5, "high": 0.5}`)."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
VAL_SHARE = 0.1
TEST_SHARE = 0.1


class RowError(ValueError):
    """A row does not fit the row format; the message names file, line, field and cure, never the text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One text with what is known of its labels. A dimension that is absent is unknown, not neutral and not none."""

    id: str
    text: str
    labels: Mapping[str, Label]
    source: str
    weight: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        labels = {name: label if isinstance(label, str) else dict(label) for name, label in self.labels.items()}
        return {"id": self.id, "text": self.text, "labels": labels, "weight": self.weight, "source": self.source}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> Self:
        """Raises RowError that begins with `where`."""
        try:
            text, labels = raw["text"], raw["labels"]
            if not isinstance(text, str) or not text.strip():
                raise RowError(f"{where}: text must be a string with something in it")
            return cls(
                id=str(raw.get("id") or where),
                text=text,
                labels={name: check_label(load_schema()[name], label) for name, label in labels.items()},
                source=str(raw.get("source", "")),
                weight=float(raw.get("weight", 1.0)),
            )
        except KeyError as error:
            raise RowError(f"{where}: lacks {error.args[0]!r}") from error
        except (SchemaError, TypeError, AttributeError) as error:
            raise RowError(f"{where}: {error}") from error


def check_label(dimension: Dimension, label: object) -> Label:
    """The label, in schema order where it is a set or a distribution. Raises SchemaError."""
    if isinstance(label, str):
        values = label.split("|")
        ranks = sorted({dimension.index(value) for value in values})
        return "|".join(dimension.names[rank] for rank in ranks)
    if not isinstance(label, Mapping) or not label:
        raise SchemaError(f"{dimension.name} must be a value, a set 'a|b' or a distribution")
    shares = {value: float(label[value]) for value in sorted(label, key=dimension.index)}
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise SchemaError(f"{dimension.name} must be a distribution: shares >= 0 that sum to 1")
    return shares


def likeliest(label: Label | None) -> str | None:
    """The one value a label stands for, or None: unknown, a set of several, or a tie."""
    if label is None:
        return None
    if isinstance(label, str):
        return None if "|" in label else label
    best = max(label.values())
    top = [value for value, share in label.items() if share == best]
    return top[0] if len(top) == 1 else None


def text_key(text: str) -> str:
    """SHA-256 of the normalised text: texts that differ in case, spacing or punctuation alone share a key."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(filter(str.isalnum, folded))
    # A text of signs alone (emoji) is its own key; else all of them would be one.
    return hashlib.sha256((letters or folded).encode()).hexdigest()


def split_of(key: str, *, val_share: float = VAL_SHARE, test_share: float = TEST_SHARE) -> Split:
    """The side of a split key. Stable: it depends on the key alone, so a text never changes sides between snapshots."""
    point = int(hashlib.sha256(f"split:{key}".encode()).hexdigest()[:8], 16) / 2**32
    if point < test_share:
        return "test"
    return "val" if point < test_share + val_share else "train"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row.as_dict(), ensure_ascii=False, sort_keys=True) + "\n")


def iter_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and the object of every line. Raises RowError for a line that is not a JSON object."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            try:
                raw = json.loads(line)
            except ValueError as error:
                raise RowError(f"{where}: not valid JSON ({error})") from error
            if not isinstance(raw, dict):
                raise RowError(f"{where}: expected a JSON object")
            yield where, raw


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote. Raises RowError."""
    return [Row.from_dict(raw, where) for where, raw in iter_jsonl(path)]
