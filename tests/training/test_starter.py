"""The first bundle from two finished runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from classifier import api
from classifier.bundle import read_calibration, verify_bundle
from classifier.schema import GOLDEN_STATEMENTS
from tests.training.toyruns import GLAD, SAD, answer_rows, make_run_dir, write_data
from training.corpus.rows import Row
from training.jobs import bert, sft, starter
from training.jobs.runtime import Job

STRESSED = {"emotion": "stress", "sentiment": "negative", "stress": "high", "risk": "low"}
IN_DANGER = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}
PLAIN = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
FULL = {"positive": GLAD, "stress": STRESSED, "self_harm_high": IN_DANGER, "neutral": PLAIN, "sadness": SAD}


def golden_rows() -> list[Row]:
    return [Row(f"g{n}", text, FULL[emotion], "golden") for n, (text, emotion, _) in enumerate(GOLDEN_STATEMENTS)]


@pytest.fixture(scope="module")
def runs(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, bases = tmp_path_factory.mktemp("runs"), toys / "base_models"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 0.02, "lora_rank": 4}
    rows = [*golden_rows(), *answer_rows()]
    bert_run = make_run_dir(folder / "bert", bases, **options)
    write_data(bert_run / "data", rows, rows)
    bert.main(Job(bert_run))
    sft_run = make_run_dir(folder / "sft", bases, "sft", lora_rank=4, max_tokens=32, batch_size=16)
    write_data(sft_run / "data", rows, rows)
    sft.main(Job(sft_run))
    return bert_run, sft_run


def test_the_starter_is_a_sound_bundle_with_a_card(runs: tuple[Path, Path], var_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "releases" / "starter-1"
    assert starter.main(["--bert", str(runs[0]), "--llm", str(runs[1]), "--out", str(out)]) == 0
    manifest = verify_bundle(out)
    assert (manifest.name, manifest.policy) == ("starter-1", "cascade")
    assert manifest.bert is not None
    assert manifest.llm is not None
    assert api.check_golden(api.load(out)) == []
    card = (tmp_path / "releases" / "starter-1.md").read_text(encoding="utf-8")
    assert "it is not a crisis service" in card
    assert "toy-bert, LoRA rank 4" in card
    assert str(tmp_path) not in card
    figures = json.loads((tmp_path / "releases" / "starter-1.json").read_text(encoding="utf-8"))
    assert figures["test"]["rows"] == 9
    assert figures["trained_on"] == {"bank": 4, "golden": 5}
    assert figures["ablation"]["parts"][0]["rows"] == 9
    assert "| bag of words |" in card
    for name in ("f1", "risk", "selective"):
        assert f"(starter-1.plots/{name}.svg)" in card
        assert (tmp_path / "releases" / "starter-1.plots" / f"{name}.svg").is_file()
    # A bundle is never changed.
    assert starter.main(["--bert", str(runs[0]), "--out", str(out)]) == 2


def test_a_starter_that_gets_a_statement_wrong_is_not_written(
    runs: tuple[Path, Path],
    var_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The rules know the real five; no bundle can satisfy these two.
    monkeypatch.setattr(api, "GOLDEN_STATEMENTS", (("a cup", "neutral", "none"), ("a cup.", "positive", "high")))
    out = tmp_path / "releases" / "starter-1"
    assert starter.main(["--bert", str(runs[0]), "--out", str(out)]) == 2
    assert "statement" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_an_unfinished_run_is_refused(toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run_dir(tmp_path / "bert", toys / "base_models")
    assert starter.main(["--bert", str(run), "--out", str(tmp_path / "starter-1")]) == 2
    assert "holds no complete run" in capsys.readouterr().err


def test_an_abstain_target_that_nothing_reaches_is_said_and_left_out(
    runs: tuple[Path, Path], var_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "starter-2"
    assert starter.main(["--bert", str(runs[0]), "--out", str(out), "--abstain-target", "0.999"]) == 0
    # Nine held-out rows prove nothing.
    assert "abstain: no limit reaches 99.9%" in capsys.readouterr().out
    assert read_calibration(out).abstain is None
