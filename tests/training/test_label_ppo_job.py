"""The label_ppo job on toy arms: what verdicts teach, interruption, and what is refused."""

import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classifier.bert import BertArm
from classifier.bundle import PROMPT_PATH
from classifier.llm import LlmArm
from classifier.schema import load_schema
from classifier.types import ArmScores
from tests.classifier.toys import TOY_BERT, TOY_LLAMA, make_bert_part, make_llm_part
from tests.inference import wait_until
from tests.training.ppo_toys import FAST, curve, events_of, make_ppo_run, make_verdicts, read_manifest
from tests.training.toyruns import make_rows, read_done, start_job
from training.corpus.preferences import RewardRow
from training.jobs import label_ppo
from training.jobs.config import JobConfig, parse_options
from training.jobs.llm_training import last_checkpoint
from training.jobs.rounds import is_held_out
from training.jobs.runtime import EXIT_STOPPED, Job, Stopped, run_job


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEED_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def bert_run(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = make_ppo_run(tmp_path_factory.mktemp("bert"), toys / "base_models", make_verdicts(60))
    label_ppo.main(Job(run_dir))
    return run_dir


@pytest.fixture(scope="module")
def llm_start(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llm_part(tmp_path_factory.mktemp("start") / "llm", toys / "base_models" / TOY_LLAMA)


def test_the_held_out_reward_rises_and_the_part_serves(bert_run: Path, bases: Path) -> None:
    made = read_manifest(bert_run)
    assert made["arm"] == "bert"
    assert made["metrics"]["verdicts"] + made["metrics"]["held_out_verdicts"] == 60
    reward = made["metrics"]["held_out_reward"]
    assert reward["after"] > reward["before"] + 0.5
    assert reward["after"] == pytest.approx(max(curve(bert_run, "held_out_reward")), abs=0.02)
    arm = BertArm.load(bert_run / "part", bases / TOY_BERT, load_schema())
    assert answers(arm.score([row.text for row in make_rows(8)]), "risk") == ["low", "none"] * 4


def answers(scores: Sequence[ArmScores], name: str) -> list[str]:
    return [max(row.probabilities[name], key=row.probabilities[name].__getitem__) for row in scores]


def test_reward_divergence_and_clip_share_are_told(bert_run: Path) -> None:
    for name in ("loss", "reward", "kl", "clip_share", "held_out_reward", "held_out_objective"):
        assert curve(bert_run, name), name
    assert curve(bert_run, "reward")[-1] > curve(bert_run, "reward")[0] + 0.5
    assert curve(bert_run, "kl")[-1] > 0.1
    assert 0 < max(curve(bert_run, "clip_share")) < 1
    assert events_of(bert_run, "progress")[-1]["done"] == read_manifest(bert_run)["steps"] == 42


def test_a_strong_pull_keeps_the_policy_near_its_start(bert_run: Path, bases: Path, tmp_path: Path) -> None:
    run_dir = make_ppo_run(tmp_path / "run", bases, make_verdicts(60), epochs=1, kl_coef=10.0)
    label_ppo.main(Job(run_dir))
    assert max(curve(run_dir, "kl")) < 0.2 * max(curve(bert_run, "kl"))


def test_right_and_wrong_without_a_correction_teach(bases: Path, tmp_path: Path) -> None:
    wrong = make_verdicts(60, is_right=False)
    run_dir = make_ppo_run(tmp_path / "run", bases, wrong, epochs=2)
    label_ppo.main(Job(run_dir))
    reward = read_manifest(run_dir)["metrics"]["held_out_reward"]
    # Only ever told "not this": the worst is -1, the best that can be reached is 0.
    assert reward["before"] < -0.1
    assert reward["after"] > reward["before"] / 2


def test_a_run_goes_on_from_a_part_and_leaves_its_encoder_whole(bases: Path, tmp_path: Path) -> None:
    start = make_bert_part(tmp_path / "start", bases / TOY_BERT)
    run_dir = make_ppo_run(tmp_path / "run", bases, make_verdicts(16), start=start, epochs=1, kl_coef=0.0)
    label_ppo.main(Job(run_dir))
    assert (run_dir / "part" / "model.safetensors").is_file()
    assert "the policy starts untrained" not in json.dumps(events_of(run_dir, "log"))


def test_weights_that_did_worse_than_the_start_are_not_kept(bases: Path, tmp_path: Path) -> None:
    start = make_bert_part(tmp_path / "start", bases / TOY_BERT)
    verdicts = make_verdicts(40)
    # The held-out verdicts say the opposite of all the others, so learning can only make them worse.
    odd = [
        replace(row, rewards={name: {value: -r for value, r in given.items()} for name, given in row.rewards.items()})
        if is_held_out(row.text)
        else row
        for row in verdicts
    ]
    options: dict[str, Any] = {
        "reward": "cost",
        "epochs": 8,
        "patience": 2,
        "checkpoint_steps": 2,
        "learning_rate": 0.1,
    }
    run_dir = make_ppo_run(tmp_path / "run", bases, odd, start=start, **options)
    label_ppo.main(Job(run_dir))
    made = read_manifest(run_dir)
    reward = made["metrics"]["held_out_reward"]
    assert reward["after"] >= reward["before"]
    found = curve(run_dir, "held_out_reward")
    assert found[-1] < max(reward["before"], *found)
    assert made["steps"] < 8 * 10
    assert any("without a better held-out reward" in event["text"] for event in events_of(run_dir, "log"))


def test_replayed_rows_are_not_forgotten(bases: Path, tmp_path: Path) -> None:
    # The verdicts speak of risk alone; the labelled rows hold the emotion.
    verdicts = [replace(row, rewards={"risk": row.rewards["risk"]}) for row in make_verdicts(40)]
    rows = [replace(row, labels={"emotion": row.labels["emotion"]}) for row in make_rows(24)]
    run_dir = make_ppo_run(tmp_path / "run", bases, verdicts, replay=rows, replay_weight=1.0)
    label_ppo.main(Job(run_dir))
    losses = curve(run_dir, "replay_loss")
    assert losses[-1] < 0.5 * losses[0]
    scores = BertArm.load(run_dir / "part", bases / TOY_BERT, load_schema()).score([row.text for row in make_rows(8)])
    assert answers(scores, "emotion") == ["sadness", "positive"] * 4
    assert answers(scores, "risk") == ["low", "none"] * 4


def stop_after(job: Job, steps: int, patch: pytest.MonkeyPatch) -> None:
    """Ask the job to stop, as SIGTERM does, once it has done so many steps."""
    progress = job.events.progress

    def stopping(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        job.stop.is_set = done >= steps

    patch.setattr(job.events, "progress", stopping)


def test_a_stopped_run_ends_its_round_and_equals_an_uninterrupted_one(
    bert_run: Path, bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_ppo_run(tmp_path / "run", bases, make_verdicts(60))
    job = Job(run_dir)
    with monkeypatch.context() as patch:
        stop_after(job, 17, patch)
        with pytest.raises(Stopped):
            label_ppo.main(job)
    assert not (run_dir / "manifest.json").exists()
    assert read_done(run_dir) == 18
    # The last checkpoint is cut short, as by a crash while it was written: the one before it is used.
    (last_checkpoint(run_dir) / "COMPLETE").unlink()  # type: ignore[operator]
    label_ppo.main(Job(run_dir))
    assert "going on from step 12" in [event["text"] for event in events_of(run_dir, "log")]
    for name in ("adapter_model.safetensors", "heads.safetensors"):
        expected = load_file(bert_run / "part" / name)
        for key, weight in load_file(run_dir / "part" / name).items():
            torch.testing.assert_close(weight, expected[key], msg=key)
    assert curve(run_dir, "held_out_reward")[-3:] == pytest.approx(curve(bert_run, "held_out_reward")[-3:], abs=1e-5)


def test_sigterm_writes_a_checkpoint_and_exits_143(bases: Path, tmp_path: Path) -> None:
    run_dir = make_ppo_run(tmp_path / "run", bases, make_verdicts(40), epochs=100, checkpoint_steps=100_000)
    process = start_job("label_ppo", run_dir)
    try:
        wait_until(lambda: read_done(run_dir) > 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == EXIT_STOPPED
    finally:
        process.kill()
    checkpoint = last_checkpoint(run_dir)
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{read_done(run_dir)}"
    assert read_done(run_dir) % FAST["ppo_epochs"] == 0


@pytest.mark.parametrize("rows", [[], [RewardRow("r", "x", {})]])
def test_a_run_without_rewards_is_refused_in_words(
    rows: list[RewardRow], bases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_ppo_run(tmp_path / "run", bases, rows)
    assert run_job(label_ppo.main, "", ["--run-dir", str(run_dir)]) == 2
    assert "rewards.jsonl has no rows: label_ppo learns from verdicts" in capfd.readouterr().err


def test_a_single_verdict_is_learned_from_and_nothing_judges(bases: Path, tmp_path: Path) -> None:
    (row, *_) = [row for row in make_verdicts(60) if is_held_out(row.text)]
    run_dir = make_ppo_run(tmp_path / "run", bases, [row], epochs=2)
    label_ppo.main(Job(run_dir))
    assert read_manifest(run_dir)["metrics"] == {"verdicts": 1, "held_out_verdicts": 0}


def test_the_llm_learns_from_verdicts_and_its_part_serves(bases: Path, llm_start: Path, tmp_path: Path) -> None:
    # The layers of the toy are random, so what it learns is tried on the texts it learned from.
    verdicts = [row for row in make_verdicts(12) if not is_held_out(row.text)][:8]
    options = {"arm": "llm", "epochs": 12, "ppo_epochs": 3, "reward": "cost"}
    run_dir = make_ppo_run(tmp_path / "run", bases, verdicts, start=llm_start, **options)  # type: ignore[arg-type]
    label_ppo.main(Job(run_dir))
    assert read_manifest(run_dir)["arm"] == "llm"
    learned = curve(run_dir, "reward")
    assert learned[-1] > learned[0] + 0.4
    arm = LlmArm.load(run_dir / "part", bases / TOY_LLAMA, load_schema(), PROMPT_PATH.read_text(encoding="utf-8"))
    scores = arm.score([row.text for row in verdicts])
    served = sum(
        given * answer.probabilities[name][value]
        for row, answer in zip(verdicts, scores, strict=True)
        for name, values in row.rewards.items()
        for value, given in values.items()
    )
    assert served / (4 * len(verdicts)) > learned[0] + 0.2


def test_the_arm_is_an_option_of_the_run(tmp_path: Path) -> None:
    for arm in ("bert", "llm"):
        JobConfig("label_ppo", parse_options("label_ppo", {"arm": arm})).write(tmp_path)
        assert JobConfig.read(tmp_path).arm == arm
    assert JobConfig("sft", parse_options("sft", {})).arm == "llm"
