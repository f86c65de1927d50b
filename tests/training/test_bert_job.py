"""The BERT job on a toy encoder: a run's trajectory, interruption, and running out of memory."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classifier.bert import BertArm
from classifier.schema import load_schema
from tests.classifier.toys import TOY_BERT
from tests.inference import wait_until
from tests.training.toyruns import make_run_dir, read_done, start_job
from training.jobs import bert
from training.jobs.checkpoints import trainable
from training.jobs.config import BertOptions, ConfigError
from training.jobs.runtime import EXIT_STOPPED, Job, Stopped, run_job

FAST: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 0.02,
    "patience": 0,
    "lora_rank": 4,
    "checkpoint_steps": 1,
}


def events_of(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def trained_weights(run_dir: Path) -> dict[str, torch.Tensor]:
    part = run_dir / "part"
    return load_file(part / "adapter_model.safetensors") | load_file(part / "heads.safetensors")


def stop_after(job: Job, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the job to stop, as SIGTERM does, once it has done so many steps."""
    step = bert.Trainer.step

    def stopping(self: bert.Trainer, batch: list[int]) -> float:
        loss = step(self, batch)
        job.stop.is_set = self.state.step + 1 >= steps
        return loss

    monkeypatch.setattr(bert.Trainer, "step", stopping)


@pytest.fixture(scope="module")
def whole_run(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_run_dir(tmp_path_factory.mktemp("whole"), toys / "base_models", **FAST)
    bert.main(Job(run_dir))
    return run_dir


def test_the_loss_falls_and_the_manifest_comes_last(whole_run: Path) -> None:
    losses = [event["value"] for event in events_of(whole_run, "metric") if event["name"] == "loss"]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    made = json.loads((whole_run / "manifest.json").read_text(encoding="utf-8"))
    assert made["arm"] == "bert"
    assert made["metrics"]["risk"]["accuracy"] == 1.0
    assert events_of(whole_run, "progress")[-1]["done"] == 12


def test_the_part_serves(whole_run: Path, bases: Path) -> None:
    arm = BertArm.load(whole_run / "part", bases / TOY_BERT, load_schema())
    glad, sad = arm.score(["x 1 ", "y 2 y 2 y 2 "])
    assert glad.probabilities["risk"]["none"] > 0.5
    assert sad.probabilities["risk"]["low"] > 0.5


def test_no_path_of_this_machine_is_in_the_part(whole_run: Path, bases: Path) -> None:
    for path in (whole_run / "part").glob("*.json"):
        assert str(bases) not in path.read_text(encoding="utf-8"), path.name


def test_a_resumed_run_equals_an_uninterrupted_one(
    whole_run: Path, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run_dir(tmp_path / "run", bases, **FAST)
    job = Job(run_dir)
    with monkeypatch.context() as patch:
        stop_after(job, 5, patch)
        with pytest.raises(Stopped):
            bert.main(job)
    assert not (run_dir / "manifest.json").exists()
    # The last checkpoint is cut short, as by a crash while it was written: the one before it is used.
    (sorted((run_dir / "checkpoints").glob("step-*"))[-1] / "COMPLETE").unlink()
    bert.main(Job(run_dir))
    assert "going on from step 4 of 12" in [event["text"] for event in events_of(run_dir, "log")]
    expected = trained_weights(whole_run)
    for name, weight in trained_weights(run_dir).items():
        torch.testing.assert_close(weight, expected[name], msg=name)


def test_out_of_memory_takes_smaller_bites_and_the_same_gradient(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = bert.Trainer(Job(make_run_dir(tmp_path / "run", bases, **FAST)), BertOptions(**FAST))
    # Without dropout: it would draw other masks for other bites.
    trainer.model.eval()
    trainer._backward(range(8))
    expected = {
        name: weight.grad.clone() for name, weight in trainable(trainer.model).items() if weight.grad is not None
    }
    forward = bert.Trainer._logits

    def refusing(self: bert.Trainer, data: bert.Data, batch: list[int]) -> dict[str, torch.Tensor]:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, data, batch)

    monkeypatch.setattr(bert.Trainer, "_logits", refusing)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    trainer.step(range(8))
    assert trainer.state.micro_rows == 2
    assert len(expected) > 10
    for name, gradient in expected.items():
        torch.testing.assert_close(trainable(trainer.model)[name].grad, gradient, msg=name)


def test_early_stopping_keeps_the_best_weights(bases: Path, tmp_path: Path) -> None:
    options = {**FAST, "epochs": 20, "learning_rate": 0.1, "patience": 1}
    run_dir = make_run_dir(tmp_path / "run", bases, **options)
    bert.main(Job(run_dir))
    losses = [event["value"] for event in events_of(run_dir, "metric") if event["name"] == "val_loss"]
    assert len(losses) < 20
    assert losses[-1] > min(losses)
    made = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    assert made["metrics"]["val_loss"] == pytest.approx(min(losses), abs=1e-4)


def test_a_full_run_goes_on_from_a_full_part(bases: Path, tmp_path: Path) -> None:
    first = make_run_dir(tmp_path / "first", bases, **{**FAST, "lora_rank": 0})
    bert.main(Job(first))
    assert (first / "part" / "model.safetensors").is_file()
    second = make_run_dir(tmp_path / "second", bases, **{**FAST, "epochs": 1})
    config = json.loads((second / "config.json").read_text(encoding="utf-8"))
    (second / "config.json").write_text(json.dumps({**config, "init_from": str(first / "part")}), encoding="utf-8")
    bert.main(Job(second))
    losses = [
        next(event["value"] for event in events_of(run_dir, "metric") if event["name"] == "loss")
        for run_dir in (first, second)
    ]
    assert losses[1] < losses[0]


def test_bad_rows_end_the_job_with_a_sentence(bases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run_dir(tmp_path / "run", bases)
    (run_dir / "data" / "val.jsonl").write_text('{"text": "a", "labels": {"risk": "huge"}}\n', encoding="utf-8")
    assert run_job(bert.main, "", ["--run-dir", str(run_dir)]) == 2
    assert "error: val.jsonl:1: risk is 'huge'" in capfd.readouterr().err


def test_a_run_of_another_kind_is_refused(bases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sft run"):
        bert.main(Job(make_run_dir(tmp_path / "run", bases, "sft")))


def test_sigterm_writes_a_checkpoint_and_exits_143(bases: Path, tmp_path: Path) -> None:
    options = {**FAST, "epochs": 100, "batch_size": 1, "checkpoint_steps": 100_000}
    run_dir = make_run_dir(tmp_path / "run", bases, **options)
    process = start_job("bert", run_dir)
    try:
        wait_until(lambda: read_done(run_dir) > 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == EXIT_STOPPED
    finally:
        process.kill()
    (checkpoint,) = (run_dir / "checkpoints").glob("step-*")
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    assert state["step"] == read_done(run_dir)
    assert (checkpoint / "COMPLETE").is_file()
