"""Public sets, in the documented format, from a folder made here."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.corpus.bank import BANK_PATH, read_bank
from training.corpus.build import build_corpus, main
from training.corpus.public import SETS, read_public
from training.corpus.rows import RowError


def write_set(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).mkdir(parents=True)
    lines = [json.dumps({"source": name, "labels": {}, **row}) for row in rows]
    (folder / name / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_partial_labels_stay_partial(tmp_path: Path) -> None:
    write_set(
        tmp_path, "vader", [{"text": "a fine day", "mapped": {"sentiment": "positive"}}, {"text": "b", "mapped": {}}]
    )
    (row,) = read_public("vader", tmp_path)
    assert row.labels == {"sentiment": "positive"}


def test_sets_of_values_stay_sets_in_order_of_severity(tmp_path: Path) -> None:
    write_set(tmp_path, "cssrs_posts", [{"text": "a", "mapped": {"risk": "high|medium"}}])
    (row,) = read_public("cssrs_posts", tmp_path)
    assert row.labels == {"risk": "medium|high"}


def test_a_negative_emotion_of_unknown_kind_becomes_a_set(tmp_path: Path) -> None:
    write_set(tmp_path, "goemotions", [{"text": "a", "mapped": {"emotion": "negative", "sentiment": "negative"}}])
    (row,) = read_public("goemotions", tmp_path)
    assert row.labels == {"emotion": "stress|sadness", "sentiment": "negative"}


def test_a_label_that_a_forum_decided_becomes_a_prior_not_a_set(tmp_path: Path) -> None:
    write_set(
        tmp_path,
        "suicidewatch_5k",
        [{"text": "a", "mapped": {"risk": "low|medium|high"}}, {"text": "b", "mapped": {"risk": "none|low"}}],
    )
    first, second = read_public("suicidewatch_5k", tmp_path)
    assert first.labels == {"risk": {"low": 0.2, "medium": 0.3, "high": 0.5}}
    assert second.labels == {"risk": {"none": 0.75, "low": 0.25}}


def test_only_open_sets_are_taken_unless_another_is_asked_for(tmp_path: Path) -> None:
    for name in SETS:
        write_set(tmp_path / "data", name, [{"text": f"a row of {name}", "mapped": {"sentiment": "neutral"}}])
    assert main(["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]) == 0
    written = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").open(encoding="utf-8")]
    assert {row["source"] for row in written if row["source"] in SETS} == {
        "goemotions",
        "sad",
        "cssrs_posts",
        "cssrs_users",
        "vader",
    }


def test_a_text_too_long_for_its_label_is_left_out(tmp_path: Path) -> None:
    write_set(tmp_path, "cssrs_users", [{"text": "word " * 200, "mapped": {"risk": "high"}}])
    assert read_public("cssrs_users", tmp_path) == []


def test_an_unknown_label_is_named_by_set_and_line(tmp_path: Path) -> None:
    write_set(tmp_path, "sad", [{"text": "a", "mapped": {"stress": "extreme"}}])
    with pytest.raises(RowError, match=r"sad/train\.jsonl:1: stress is 'extreme'"):
        read_public("sad", tmp_path)


def test_the_corpus_takes_no_more_than_the_cap_and_always_the_same(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "mapped": {"sentiment": "neutral"}} for n in range(30)]
    write_set(tmp_path / "one", "vader", rows)
    write_set(tmp_path / "two", "vader", rows[::-1])
    found = [
        {
            row.text
            for row in build_corpus(BANK_PATH, tmp_path / folder, {"vader": 7}).splits["train"]
            if row.source == "vader"
        }
        for folder in ("one", "two")
    ]
    assert len(found[0]) == 7
    assert found[0] == found[1]


def test_an_excluded_text_is_not_trained_on(tmp_path: Path) -> None:
    victim = next(item.row for item in read_bank() if item.split == "train")
    excluded = tmp_path / "evaluation.jsonl"
    excluded.write_text(json.dumps({"text": victim.text.upper() + " !"}), encoding="utf-8")
    assert main(["--out", str(tmp_path / "corpus"), "--exclude", str(excluded)]) == 0
    assert victim.id not in (tmp_path / "corpus" / "train.jsonl").read_text(encoding="utf-8")
