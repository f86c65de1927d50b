"""Freezing feedback into an immutable data set."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.feedback_records import A, B, correction, record
from training.corpus.bank import read_bank
from training.corpus.compile import FeedbackRecord
from training.corpus.held_out import KEY_DIGITS, HeldOut
from training.corpus.manifest import Difference, diff_manifests
from training.corpus.preferences import (
    KTO_FILE,
    PAIRS_FILE,
    REWARDS_FILE,
    KtoRow,
    PairRow,
    RewardRow,
    read_preferences,
)
from training.corpus.rows import SPLITS, Row, read_rows, text_key
from training.corpus.snapshot import Setting, SnapshotOptions, freeze, parse_snapshot_options, preview
from training.corpus.splits import read_sides

PLAIN = SnapshotOptions()


def corrections(count: int, start: int = 0) -> list[FeedbackRecord]:
    return [correction(f"made up text {number}") for number in range(start, start + count)]


def rows_of(folder: Path) -> dict[str, list[Row]]:
    return {split: read_rows(folder / f"{split}.jsonl") for split in SPLITS}


def keys_of(rows: list[Row]) -> set[str]:
    return {text_key(row.text) for row in rows}


class TestSides:
    def test_no_text_stands_in_two_splits(self, tmp_path: Path) -> None:
        bank = read_bank()
        # Some corrections repeat texts of the bank, in another spelling.
        texts = [f"made up text {n}" for n in range(100)] + [item.row.text.upper() for item in bank[::50]]
        frozen = freeze([correction(text) for text in texts], PLAIN, tmp_path)
        keys = [text_key(row.text) for rows in rows_of(frozen.folder).values() for row in rows]
        assert len(keys) == len(set(keys)) == frozen.rows

    def test_a_corrected_bank_text_keeps_its_side_and_takes_the_new_labels(self, tmp_path: Path) -> None:
        victims = read_bank()[::20]
        frozen = freeze([correction(item.row.text) for item in victims], PLAIN, tmp_path)
        for split, rows in rows_of(frozen.folder).items():
            found = {row.text: row for row in rows if row.source == "feedback"}
            assert set(found) == {item.row.text for item in victims if item.split == split}
            assert all(row.labels == B for row in found.values())

    def test_a_tenth_of_each_risk_and_source_is_held_out(self, tmp_path: Path) -> None:
        records = corrections(200)
        records += [record(f"calm text {number}") for number in range(100)]
        records += [record(f"sent text {number}", origin="api") for number in range(60)]
        frozen = freeze(records, PLAIN, tmp_path)
        held_out = [row.text for row in rows_of(frozen.folder)["test"] if row.source == "feedback"]
        counts = {word: sum(text.startswith(word) for text in held_out) for word in ("made", "calm", "sent")}
        assert counts == {"made": 20, "calm": 10, "sent": 6}
        assert frozen.manifest["feedback_rows"] == {"train": 324, "val": 0, "test": 36}

    def test_a_handful_of_corrections_is_trained_on_whole(self, tmp_path: Path) -> None:
        assert freeze(corrections(4), PLAIN, tmp_path).manifest["feedback_rows"]["test"] == 0

    def test_a_text_never_changes_sides(self, tmp_path: Path) -> None:
        """Neither when other texts come, nor when its own labels change, nor after a snapshot without it."""
        first = freeze(corrections(50), PLAIN, tmp_path)
        sides = read_sides(first.folder)
        without = freeze(corrections(25, start=25), PLAIN, tmp_path, Setting(sides=sides))
        changed = [record(item.text) for item in corrections(50)] + corrections(200, start=50)
        last = freeze(changed, PLAIN, tmp_path, Setting(sides=read_sides(without.folder)))
        before, after = rows_of(first.folder), rows_of(last.folder)
        assert not keys_of(before["train"]) & keys_of(after["test"])
        assert not keys_of(before["test"]) & keys_of(after["train"])
        assert last.manifest["feedback_rows"]["test"] == 25

    def test_sides_of_an_older_format_are_read_from_its_rows(self, tmp_path: Path) -> None:
        frozen = freeze(corrections(30), PLAIN, tmp_path)
        sides = read_sides(frozen.folder)
        (frozen.folder / "sides.json").unlink()
        assert read_sides(frozen.folder) == sides
        assert read_sides(tmp_path / "gone") == {}


class TestLeaks:
    def test_evaluation_texts_and_gold_items_are_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = frozenset({text_key("made up text 3")[:KEY_DIGITS]})
        monkeypatch.setattr("training.corpus.snapshot.read_held_out", lambda: HeldOut(secret))
        gold = frozenset({text_key("made up text 5")})
        frozen = freeze(corrections(10), PLAIN, tmp_path, Setting(gold=gold))
        texts = {row.text for rows in rows_of(frozen.folder).values() for row in rows}
        preferred = {row.text for row in read_preferences(frozen.folder / KTO_FILE, KtoRow)}
        assert not {"made up text 3", "made up text 5"} & (texts | preferred)
        assert "made up text 4" in texts & preferred
        left_out = frozen.manifest["left_out"]
        assert (left_out["held_out"], left_out["gold"]) == (1, 1)

    def test_no_text_of_a_snapshot_is_an_evaluation_text(self, tmp_path: Path) -> None:
        from training.corpus.held_out import read_held_out

        frozen = freeze(corrections(10), SnapshotOptions(replay_rows=0), tmp_path)
        leaked = [
            row.id
            for rows in rows_of(frozen.folder).values()
            for row in rows
            if row.source != "golden" and text_key(row.text) in read_held_out()
        ]
        assert leaked == []

    def test_preference_rows_are_of_trained_texts_alone(self, tmp_path: Path) -> None:
        frozen = freeze(corrections(100), PLAIN, tmp_path)
        splits = rows_of(frozen.folder)
        for name, form, rows in ((KTO_FILE, KtoRow, 180), (PAIRS_FILE, PairRow, 90), (REWARDS_FILE, RewardRow, 90)):
            found: list[Any] = read_preferences(frozen.folder / name, form)
            assert len(found) == rows
            assert {text_key(row.text) for row in found} <= keys_of(splits["train"])
        assert frozen.manifest["preference_rows"] == {"kto": 180, "pairs": 90, "rewards": 90}
        assert frozen.manifest["left_out"]["held_out_side"] == 10


class TestContent:
    def test_the_same_feedback_gives_the_same_bytes(self, tmp_path: Path) -> None:
        records = corrections(20) + [record(f"made up text {n}", annotator="p2") for n in range(8)]
        first = freeze(records, PLAIN, tmp_path / "one")
        again = freeze(records[::-1], PLAIN, tmp_path / "two")
        files = sorted(path.name for path in first.folder.iterdir())
        assert files == sorted(path.name for path in again.folder.iterdir())
        assert len(files) == 8
        for name in files:
            assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes(), name

    def test_a_snapshot_is_left_as_it_is(self, tmp_path: Path) -> None:
        first = freeze(corrections(20), PLAIN, tmp_path)
        (first.folder / "mark").touch()
        again = freeze(corrections(20), PLAIN, tmp_path, Setting(sides=read_sides(first.folder)))
        more = freeze(corrections(21), PLAIN, tmp_path)
        assert (first.folder, first.content_hash) == (again.folder, again.content_hash)
        assert (again.folder / "mark").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.folder.name, more.folder.name])

    def test_the_hash_is_of_preferences_too(self, tmp_path: Path) -> None:
        """The two give the same label rows."""
        whole = freeze([correction(judged_labels=A)], PLAIN, tmp_path)
        partly = freeze([correction(judged_labels={"risk": "none"})], PLAIN, tmp_path)
        assert (whole.folder / "train.jsonl").read_bytes() == (partly.folder / "train.jsonl").read_bytes()
        assert whole.content_hash != partly.content_hash

    def test_files_without_rows_are_missing(self, tmp_path: Path) -> None:
        names = {path.name for path in freeze([], PLAIN, tmp_path).folder.iterdir()}
        assert names == {"train.jsonl", "val.jsonl", "test.jsonl", "manifest.json", "sides.json"}

    def test_replay_limits_the_bank_but_not_the_held_out_rows(self, tmp_path: Path) -> None:
        full = freeze([], SnapshotOptions(replay_rows=0), tmp_path).manifest
        few = freeze([], SnapshotOptions(replay_rows=100), tmp_path).manifest
        assert few["rows"]["train"] <= 105
        assert (few["rows"]["val"], few["rows"]["test"]) == (full["rows"]["val"], full["rows"]["test"])
        beyond = few["left_out"]["bank_beyond_replay"]
        assert (full["left_out"], full["rows"]["train"] - few["rows"]["train"]) == ({}, beyond)


class TestManifest:
    def test_a_preview_is_the_manifest_to_be_and_leaves_nothing(self, tmp_path: Path) -> None:
        shown = preview(corrections(12), PLAIN, Setting())
        assert list(tmp_path.iterdir()) == []
        assert freeze(corrections(12), PLAIN, tmp_path).manifest == shown

    def test_counts_people_by_pseudonym_and_unknown_authors_as_one(self) -> None:
        records = [
            *corrections(6),
            *(correction(f"other {n}", annotator="p2") for n in range(2)),
            *(correction(f"file {n}", annotator=f"import-{n}", origin="import") for n in range(2)),
            record("skipped", annotator="p2", verdict="skip"),
        ]
        manifest = preview(records, PLAIN, Setting())
        assert list(manifest["people"]) == ["p1", "import", "p2"]
        assert manifest["people"]["p2"] | {"trust": 1.0} == {
            "verdicts": 3, "texts": 2, "share": 0.25, "trust": 1.0, "shared_votes": 0, "capped_to": 1.0,
        }  # fmt: skip
        assert manifest["people"]["p1"]["share"] == 0.5  # 6 of 10, cut to half of what is left
        assert manifest["sources"]["train"]["feedback: import"] == 2
        assert manifest["feedback_labels"]["risk"] == {"low": 10}
        assert manifest["left_out"]["skip"] == 1
        assert manifest["weights"].startswith("everybody counts the same: 0 texts")

    def test_difference_of_two(self) -> None:
        before = {"records": 3, "rows": {"train": 10, "val": 2}, "left_out": {"skip": 1}, "people": {}}
        after = {"records": 3, "rows": {"train": 12, "val": 2}, "left_out": {}, "people": {"p1": {"texts": 2}}}
        assert diff_manifests(before, after) == [
            Difference("rows", "train", 10, 12),
            Difference("people", "p1 texts", None, 2),
            Difference("left_out", "skip", 1, None),
        ]
        assert diff_manifests(after, after) == []


@pytest.mark.parametrize(
    "raw",
    [
        {"replay": 3},
        {"disagreement": "loud"},
        {"feedback_weight": 0},
        {"replay_rows": -1},
        {"influence_cap": 0},
        {"influence_cap": 1.5},
    ],
)
def test_rejects_an_odd_option(raw: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_snapshot_options(raw)
