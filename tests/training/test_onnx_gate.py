"""Whether a release may serve its BERT part as int8 ONNX, and what it says about that."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classifier import api
from classifier.base_models import sha256_of, weights_sha256
from classifier.bert import BertArm
from classifier.bert_onnx import OnnxBertArm, load_bert
from classifier.bundle import BundleParts, verify_bundle
from classifier.derived import ensure_onnx, inputs_sha256
from classifier.hybrid import Calibration
from classifier.schema import load_schema
from classifier.types import ArmScores
from tests.classifier.toys import TOY_BERT, golden_answers, make_base_models, make_bert_part
from tests.training.test_starter import golden_rows
from tests.training.toyruns import answer_rows, make_rows, make_run_dir, write_data
from training.corpus.rows import Row
from training.jobs import bert, starter
from training.jobs.candidate import Sets
from training.jobs.onnx_gate import Change, answer, choose_runtime, measure_delta
from training.jobs.runtime import Job

SCHEMA = load_schema()


def scores(**labels: str) -> ArmScores:
    """All mass on the given labels, else on the first of a dimension."""
    return ArmScores(
        "bert",
        {
            dimension.name: {
                name: float(name == labels.get(dimension.name, dimension.names[0])) for name in dimension.names
            }
            for dimension in SCHEMA.dimensions
        },
        1.0,
    )


def rows_of_risk(*risks: str) -> list[Row]:
    return [Row(f"r{place}", "x", {"risk": risk}, "bank:T") for place, risk in enumerate(risks)]


def test_counts_labels_lost_and_won_and_risk_missed() -> None:
    rows = [
        *rows_of_risk("high", "medium", "medium", "none", "low|none"),
        Row("e", "x", {"emotion": "stress"}, "bank:T"),
    ]
    before = [scores(risk=risk) for risk in ("high", "medium", "low", "low", "none", "none")]
    after = [scores(risk=risk) for risk in ("medium", "low", "medium", "none", "high", "none")]
    delta = measure_delta(rows, before, after, SCHEMA)
    # A label that may be one of several says nothing; a row counts only where it has a label.
    assert delta.labels["risk"] == Change(lost=2, won=2, total=4)
    assert delta.labels["emotion"] == Change(lost=0, won=0, total=1)
    # high answered medium is wrong, but not missed.
    assert delta.missed_risk == Change(lost=1, won=1, total=3)


@pytest.mark.parametrize(
    ("change", "bar", "wanted"),
    [
        (Change(0, 0, 0), 0.003, True),
        (Change(3, 0, 1000), 0.003, True),
        (Change(4, 0, 1000), 0.003, False),
        (Change(9, 6, 1000), 0.003, True),
        (Change(7, 6, 100), 0, False),
        (Change(9, 2, 100), 0, False),
        (Change(0, 9, 100), 0, True),
    ],
)
def test_a_loss_counts_beyond_the_bar(change: Change, bar: float, wanted: bool) -> None:
    assert change.is_within(bar) is wanted


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Base models, and the derived files of these tests: an export takes seconds."""
    folder = tmp_path_factory.mktemp("gate")
    make_base_models(folder / "base_models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEED_DERIVED_DIR", str(folder / "derived"))
        yield folder


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEED_BERT_RUNTIME", raising=False)


@pytest.fixture
def job(toys: Path, tmp_path: Path) -> Job:
    return Job(make_run_dir(tmp_path / "run", toys / "base_models"))


def make_parts(toys: Path, seed: int) -> BundleParts:
    base = toys / "base_models" / TOY_BERT
    part = toys / f"bert-{seed}"
    if not part.is_dir():
        make_bert_part(part, base, seed=seed)
    return BundleParts(
        name="c",
        policy="cascade",
        calibration=Calibration.identity(SCHEMA),
        bert=part,
        bert_base=(TOY_BERT, weights_sha256(base)),
    )


def answered_rows(toys: Path, seed: int) -> list[Row]:
    """Rows labelled by what the part answers in fp32, so that every change is a loss."""
    arm = BertArm.load(toys / f"bert-{seed}", toys / "base_models" / TOY_BERT, SCHEMA)
    rows = make_rows(60)
    found = arm.score([row.text for row in rows])
    return [
        replace(row, labels={name: answer(scored, name) for name in SCHEMA.names})
        for row, scored in zip(rows, found, strict=True)
    ]


def sure_rows() -> list[Row]:
    """Rows that the toy heads are solved for, far from any border between two labels."""
    return [Row(text, text, labels, "bank:T") for text, labels in golden_answers().items()]


def read_runtime(parts: BundleParts) -> dict[str, Any]:
    assert parts.bert is not None
    runtime: dict[str, Any] = json.loads((parts.bert / "bert.json").read_text(encoding="utf-8"))["runtime"]
    return runtime


def test_a_harmless_export_serves_and_is_on_record(toys: Path, job: Job) -> None:
    parts = make_parts(toys, 1)
    rows = sure_rows()
    chosen = choose_runtime(job, parts, Sets(rows, rows, []))
    base = toys / "base_models" / TOY_BERT
    assert parts.bert is not None
    assert chosen.bert is not None
    runtime = read_runtime(chosen)
    assert runtime["name"] == "onnx"
    assert runtime["inputs_sha256"] == inputs_sha256(parts.bert, base, SCHEMA)
    assert runtime["onnx_sha256"] == sha256_of(ensure_onnx(chosen.bert, base, SCHEMA))
    # Each text once, though it stands in both sets.
    assert runtime["measured"]["labels"]["risk"]["rows"] == 5
    assert isinstance(load_bert(chosen.bert, base, SCHEMA), OnnxBertArm)
    # The run's own part keeps the hash its version is registered by.
    assert "runtime" not in json.loads((parts.bert / "bert.json").read_text(encoding="utf-8"))
    assert choose_runtime(job, chosen, Sets(rows, rows, [])) == chosen


def test_an_export_that_answers_otherwise_does_not_serve(toys: Path, job: Job) -> None:
    base = toys / "base_models" / TOY_BERT
    right, other = make_parts(toys, 1).bert, make_parts(toys, 2).bert
    assert right is not None
    assert other is not None
    good = ensure_onnx(right, base, SCHEMA)
    # Another network under this part's name, whole by its note.
    bad = good.with_name(f"{inputs_sha256(other, base, SCHEMA)}.onnx")
    shutil.copyfile(good, bad)
    shutil.copyfile(good.with_suffix(".sha256"), bad.with_suffix(".sha256"))
    rows = answered_rows(toys, 2)
    chosen = choose_runtime(job, make_parts(toys, 2), Sets(rows, rows, []))
    runtime = read_runtime(chosen)
    assert runtime["name"] == "torch"
    assert max(item["loss_points"] for item in runtime["measured"]["labels"].values()) > 10
    log = (job.run_dir / "events.jsonl").read_text(encoding="utf-8")
    assert "FAILED" in log


def test_a_part_that_cannot_be_exported_is_served_by_torch(
    toys: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job.run_dir / "file").touch()
    monkeypatch.setenv("HEED_DERIVED_DIR", str(job.run_dir / "file" / "derived"))
    rows = make_rows(4)
    assert read_runtime(choose_runtime(job, make_parts(toys, 1), Sets(rows, rows, [])))["name"] == "torch"


def test_nothing_is_measured_where_onnx_is_ruled_out(toys: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_BERT_RUNTIME", "torch")
    parts = make_parts(toys, 1)
    assert choose_runtime(job, parts, Sets([], [], [])) is parts


def test_a_release_says_what_it_was_measured_for_and_serves_so(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = toys / "base_models"
    monkeypatch.setenv("HEED_BASE_MODELS", str(bases))
    run = make_run_dir(tmp_path / "run", bases, epochs=2, batch_size=16, learning_rate=0.02, lora_rank=4)
    rows = [*golden_rows(), *answer_rows()]
    write_data(run / "data", rows, rows)
    bert.main(Job(run))
    out = tmp_path / "starter-1"
    assert starter.main(["--bert", str(run), "--out", str(out)]) == 0
    manifest = verify_bundle(out)
    assert "bert/bert.json" in manifest.files
    runtime = json.loads((out / "bert" / "bert.json").read_text(encoding="utf-8"))["runtime"]
    assert runtime["measured"]["labels"]["emotion"]["rows"] == 9
    assert isinstance(api.load(out)._arms.bert, OnnxBertArm) is (runtime["name"] == "onnx")
    assert not [name for name in manifest.files if name.endswith(".onnx")]
