"""Adapters for public labelled sets with an open licence, read from a local folder that nobody needs to have.

The folder (an argument, or HEED_DATA_DIR) holds one folder for each set, with `train.jsonl` and `dev.jsonl`; a row is
`{"text", "source", "labels": {original}, "mapped": {"emotion"?, "sentiment"?, "stress"?, "risk"?}}`. Only `mapped` is
read.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.corpus.rows import Row, RowError, iter_jsonl, text_key


@dataclass(frozen=True, slots=True)
class PublicSet:
    """`renames`: dimension -> value of the set -> label of ours. `max_words`: longer texts are left out."""

    name: str
    licence: str
    citation: str
    max_words: int
    renames: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


# cssrs: a label is about the whole text (of a user: about all posts). A text that would be cut has lost its label.
OPEN_SETS: Mapping[str, PublicSet] = {
    item.name: item
    for item in (
        PublicSet(
            "goemotions",
            "Apache-2.0",
            "Demszky et al. (2020), GoEmotions, ACL 2020",
            max_words=120,
            # "Some negative emotion, the label does not say which": one of the two that are not self-harm.
            renames={"emotion": {"negative": "stress|sadness"}},
        ),
        PublicSet("sad", "MIT", "Mauriello et al. (2021), SAD, CHI EA 2021", max_words=120),
        PublicSet(
            "cssrs_posts", "CC BY 4.0", "Gaur et al. (2019), WWW 2019; Gaur et al. (2021), PLOS ONE", max_words=160
        ),
        PublicSet("cssrs_users", "CC BY 4.0", "Gaur et al. (2019), WWW 2019", max_words=160),
        PublicSet("vader", "MIT", "Hutto and Gilbert (2014), VADER, ICWSM 2014", max_words=120),
    )
}


def public_data_dir() -> Path | None:
    """The folder that HEED_DATA_DIR names, or None."""
    raw = os.environ.get("HEED_DATA_DIR")
    return Path(raw).expanduser() if raw else None


def read_public(name: str, data_dir: Path, *, split: str = "train") -> list[Row]:
    """The usable rows of one set, partial labels kept partial, repeats left out. Raises RowError."""
    if name not in OPEN_SETS:
        raise RowError(f"unknown public set {name!r}, expected one of {', '.join(OPEN_SETS)}")
    path = data_dir / name / f"{split}.jsonl"
    if not path.is_file():
        raise RowError(f"{path} is not there: put the set into the data folder, or leave it out")
    rows: dict[str, Row] = {}
    for row in _iter_usable(OPEN_SETS[name], path):
        rows.setdefault(text_key(row.text), row)
    return list(rows.values())


def _iter_usable(item: PublicSet, path: Path) -> Iterator[Row]:
    for where, raw in iter_jsonl(path):
        mapped: Any = raw.get("mapped")
        if not mapped:
            continue
        labels = {
            dimension: item.renames.get(dimension, {}).get(value, value) for dimension, value in dict(mapped).items()
        }
        found = {"id": f"{item.name}-{text_key(str(raw.get('text')))[:16]}", "text": raw.get("text"), "labels": labels}
        row = Row.from_dict(found | {"source": item.name}, f"{item.name}/{where}")
        if len(row.text.split()) <= item.max_words:
            yield row
