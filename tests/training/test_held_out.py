"""Evaluation texts never reach the training rows, whatever source offers them."""

import json
from pathlib import Path

import pytest

from training.corpus.bank import BANK_PATH, read_bank
from training.corpus.build import build_corpus, main
from training.corpus.held_out import HELD_OUT_PATH, add_texts, read_held_out
from training.corpus.rows import iter_jsonl, text_key

MADE_UP = "The heron stood on one leg by the weir and nobody spoke."


def test_no_bank_row_is_an_evaluation_text() -> None:
    assert len(read_held_out()) > 10_000
    assert [item.row.id for item in read_bank() if text_key(item.row.text) in read_held_out()] == []


def test_no_generated_row_is_an_evaluation_text(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--generate", "400"]) == 0
    texts = [str(raw["text"]) for _, raw in iter_jsonl(tmp_path / "train.jsonl") if raw["source"] != "golden"]
    assert len(texts) > 1000
    assert not [text for text in texts if text_key(text) in read_held_out()]


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list that knows MADE_UP alone, in place of ours."""
    evaluation, listed = tmp_path / "evaluation.jsonl", tmp_path / "held_out.txt"
    evaluation.write_text(json.dumps({"text": MADE_UP.upper()}), encoding="utf-8")
    assert add_texts([evaluation], listed) == 1
    monkeypatch.setattr("training.corpus.build.read_held_out", lambda: read_held_out(listed))
    return listed


def test_a_public_row_that_is_an_evaluation_text_is_left_out(tmp_path: Path, held_out: Path) -> None:
    folder = tmp_path / "data" / "vader"
    folder.mkdir(parents=True)
    rows = [{"text": text, "mapped": {"sentiment": "neutral"}} for text in (MADE_UP, "Another text.")]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    corpus = build_corpus(BANK_PATH, tmp_path / "data", {"vader": 10})
    assert [row.text for row in corpus.splits["train"] if row.source == "vader"] == ["Another text."]


def test_adding_texts_twice_adds_nothing_and_keeps_no_text(tmp_path: Path, held_out: Path) -> None:
    assert add_texts([tmp_path / "evaluation.jsonl"], held_out) == 0
    assert "heron" not in held_out.read_text(encoding="ascii")
    assert HELD_OUT_PATH.read_text(encoding="ascii").isascii()
