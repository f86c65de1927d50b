"""Which side a text of a snapshot stands on. Pure: the same rows and the same history give the same sides.

Bank rows keep their side. Feedback is trained on, but for a tenth that is held out to measure with: a tenth of each
risk and source. A text that has had a side keeps it, whatever comes later: the sides of earlier snapshots are an input.
"""

import hashlib
import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from classifier.schema import load_schema
from training.corpus.bank import BankRow
from training.corpus.build import golden_rows
from training.corpus.rows import SPLITS, Row, Split, likeliest, read_rows, text_key

FEEDBACK_TEST_SHARE = 0.1
SIDES_FILE = "sides.json"
"""Text key -> side, of every text that ever gave feedback. Not part of the content: it holds texts long gone too."""


def place_feedback(rows: Mapping[str, Row], sources: Mapping[str, str], known: Mapping[str, Split]) -> dict[str, Split]:
    """Text key -> side, for rows by their text keys. `sources`: where the feedback on each came from.

    The tenth runs on from stratum to stratum, so that small ones together give theirs as well.
    """
    sides: dict[str, Split] = {key: known[key] for key in rows if key in known}
    strata = {key: (_rank_risk(row), sources.get(key, "")) for key, row in rows.items()}
    due, held_out = 0.0, 0
    for _, group in groupby(sorted(rows, key=lambda key: (strata[key], _draw(key))), key=strata.__getitem__):
        keys = list(group)
        due += FEEDBACK_TEST_SHARE * len(keys)
        held_out += sum(sides.get(key) == "test" for key in keys)
        fresh = [key for key in keys if key not in sides]
        wanted = min(max(round(due) - held_out, 0), len(fresh))
        sides |= {key: "test" if place < wanted else "train" for place, key in enumerate(fresh)}
        held_out += wanted
    return sides


def _rank_risk(row: Row) -> int:
    """Highest risk first; unknown last."""
    risk = likeliest(row.labels.get("risk"))
    return -load_schema()["risk"].index(risk) if risk else 1


def _draw(key: str) -> str:
    """An order that has nothing to do with the text or with when it came."""
    return hashlib.sha256(f"split:{key}".encode()).hexdigest()


def split_rows(
    feedback: Mapping[str, Row], sides: Mapping[str, Split], bank: Mapping[str, BankRow], replay_rows: int
) -> dict[Split, list[Row]]:
    """No text stands in two splits. A text that stands in the bank as well counts once, with people's labels.

    `feedback` and `bank`: by text key, in the order of the ids.
    """
    splits: dict[Split, list[Row]] = {split: [] for split in SPLITS}
    for key, row in feedback.items():
        splits[sides[key]].append(row)
    kept = {key: item for key, item in bank.items() if key not in feedback}
    for split in ("val", "test"):
        splits[split] += [item.row for item in kept.values() if item.split == split]
    replay = [item.row for item in kept.values() if item.split == "train"]
    golden = [row for row in golden_rows() if (key := text_key(row.text)) not in kept and key not in feedback]
    splits["train"] += golden + (replay[:replay_rows] if replay_rows else replay)
    return splits


def read_sides(folder: Path) -> dict[str, Split]:
    """Of a snapshot, and of all before it. One that was made before sides were kept tells its own; a lost one none."""
    path = folder / SIDES_FILE
    if path.is_file():
        sides: dict[str, Split] = json.loads(path.read_text(encoding="utf-8"))
        return sides
    found: dict[str, Split] = {}
    for split in SPLITS:
        if (folder / f"{split}.jsonl").is_file():
            rows = read_rows(folder / f"{split}.jsonl")
            found |= {text_key(row.text): split for row in rows if row.source == "feedback"}
    return found
