"""Freezing feedback into an immutable data set."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from training.corpus.bank import read_bank
from training.corpus.compile import FeedbackRecord
from training.corpus.rows import read_rows, text_key
from training.corpus.snapshot import SnapshotOptions, freeze, parse_snapshot_options

LABELS = {"emotion": "stress", "sentiment": "negative", "stress": "high", "risk": "low"}


def correction(text: str) -> FeedbackRecord:
    return FeedbackRecord(
        text=text,
        text_hash=text_key(text),
        verdict="corrected",
        judged_labels={},
        labels=LABELS,
        annotator="p1",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        guideline_version="1",
        origin="web",
    )


def test_no_text_stands_in_two_splits(tmp_path: Path) -> None:
    bank = read_bank()
    # Some corrections repeat texts of the bank, in another spelling.
    texts = [f"made up text {n}" for n in range(100)] + [item.row.text.upper() for item in bank[::50]]
    frozen = freeze([correction(text) for text in texts], SnapshotOptions(), tmp_path)
    keys = [
        text_key(row.text) for split in ("train", "val", "test") for row in read_rows(frozen.folder / f"{split}.jsonl")
    ]
    assert len(keys) == len(set(keys)) == frozen.rows


def test_a_corrected_bank_text_keeps_its_side_and_takes_the_new_labels(tmp_path: Path) -> None:
    victims = read_bank()[::20]
    frozen = freeze([correction(item.row.text) for item in victims], SnapshotOptions(), tmp_path)
    for split in ("train", "val", "test"):
        found = {row.text: row for row in read_rows(frozen.folder / f"{split}.jsonl") if row.source == "feedback"}
        assert set(found) == {item.row.text for item in victims if item.split == split}
        assert all(row.labels == LABELS for row in found.values())


def test_a_tenth_of_the_feedback_is_held_out(tmp_path: Path) -> None:
    frozen = freeze([correction(f"made up text {n}") for n in range(400)], SnapshotOptions(), tmp_path)
    held_out = frozen.manifest["feedback_rows"]
    assert held_out["val"] == 0
    assert 25 <= held_out["test"] <= 60
    assert held_out["train"] == 400 - held_out["test"]


def test_the_same_feedback_gives_the_same_snapshot(tmp_path: Path) -> None:
    records = [correction(f"made up text {n}") for n in range(20)]
    first = freeze(records, SnapshotOptions(), tmp_path)
    again = freeze(records[::-1], SnapshotOptions(), tmp_path)
    more = freeze([*records, correction("one more")], SnapshotOptions(), tmp_path)
    assert (first.folder, first.content_hash) == (again.folder, again.content_hash)
    assert more.content_hash != first.content_hash
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.folder.name, more.folder.name])


def test_replay_limits_the_bank_but_not_the_held_out_rows(tmp_path: Path) -> None:
    full = freeze([], SnapshotOptions(replay_rows=0), tmp_path).manifest["rows"]
    few = freeze([], SnapshotOptions(replay_rows=100), tmp_path).manifest["rows"]
    assert few["train"] <= 105
    assert (few["val"], few["test"]) == (full["val"], full["test"])


@pytest.mark.parametrize("raw", [{"replay": 3}, {"disagreement": "loud"}, {"feedback_weight": 0}, {"replay_rows": -1}])
def test_rejects_an_odd_option(raw: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_snapshot_options(raw)
