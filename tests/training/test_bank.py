"""The bank as it is shipped."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from classifier.schema import load_schema
from training.corpus.bank import BANK_PATH, read_bank
from training.corpus.build import PUBLIC_CAPS, build_corpus
from training.corpus.rows import RowError, text_key


def test_every_label_is_in_the_schema_and_every_row_is_full() -> None:
    for item in read_bank():
        assert dict(item.row.labels) == load_schema().check_labels(item.row.labels), item.row.id  # type: ignore[arg-type]


def test_a_text_that_was_written_twice_has_the_same_labels() -> None:
    seen: dict[str, tuple[str, object]] = {}
    for path in sorted(BANK_PATH.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            row = json.loads(line)
            where, labels = seen.setdefault(text_key(row["text"]), (f"{path.name}:{number}", row["labels"]))
            assert labels == row["labels"], f"{path.name}:{number} contradicts {where}"
    assert len(read_bank()) == len(seen)


def test_the_sides_of_a_pair_stay_together() -> None:
    sides = defaultdict(list)
    for item in read_bank():
        if item.pair:
            sides[item.pair].append(item.split)
    assert len(sides) > 100
    for pair, splits in sides.items():
        assert len(splits) >= 2, f"pair {pair} has one side only"
        assert len(set(splits)) == 1, f"pair {pair} is split"


def test_every_functionality_has_rows_to_learn_from() -> None:
    counts = Counter((item.functionality, item.split) for item in read_bank())
    for code in range(1, 25):
        assert counts[f"F{code:02d}", "train"] >= 50, code


def test_active_self_harm_is_always_high_risk() -> None:
    for item in read_bank():
        if item.row.labels["emotion"] == "self_harm_high":
            assert item.row.labels["risk"] == "high", item.row.id


def test_no_text_of_the_corpus_stands_in_two_splits() -> None:
    corpus = build_corpus(BANK_PATH, None, PUBLIC_CAPS)
    keys = [text_key(row.text) for rows in corpus.splits.values() for row in rows]
    assert len(keys) == len(set(keys))
    shares = {split: len(rows) / len(keys) for split, rows in corpus.splits.items()}
    assert 0.07 < shares["val"] < 0.13
    assert 0.07 < shares["test"] < 0.13


def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    good = {"text": "a", "labels": {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}}
    bad = {**good, "text": "b", "labels": {**good["labels"], "risk": "huge"}, "functionality": "F01"}  # type: ignore[dict-item]
    lines = [json.dumps({**good, "functionality": "F01"}), json.dumps(bad)]
    (tmp_path / "f01.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(RowError, match=r"f01\.jsonl:2: risk is 'huge', expected one of none, low, medium, high"):
        read_bank(tmp_path)
