"""A reward run under the supervisor: no bundle, no version, its part kept for the ppo run that asks for it."""

from pathlib import Path
from typing import Any

import pytest

from tests.classifier.toys import TOY_LLAMA
from tests.training.toyruns import answer_rows, make_rows, write_data
from tests.training.trlruns import SHORT, make_pairs, make_texts
from training import api, registry, supervisor
from training.corpus.preferences import PAIRS_FILE, write_preferences
from training.jobs.config import JobConfig
from training.models import DatasetSnapshot, ModelVersion, Release, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def snapshot(var_dir: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSnapshot:
    monkeypatch.setenv("HEED_LLM_BASE", str(toys / "base_models" / TOY_LLAMA))
    api.ensure_starter_release(toys / "toy-1")
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), answer_rows())
    write_preferences(folder / PAIRS_FILE, make_pairs(make_texts(24)))
    return DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)


def queue_run(kind: str, snapshot: DatasetSnapshot, **options: Any) -> TrainingRun:
    return TrainingRun.objects.create(kind=kind, snapshot=snapshot, config={"options": options})


def work_on(run: TrainingRun) -> TrainingRun:
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    return run


def test_a_reward_run_succeeds_without_a_version_and_is_found_by_ppo(snapshot: DatasetSnapshot) -> None:
    run = work_on(queue_run("reward", snapshot, **SHORT, epochs=1))
    assert (run.state, run.error, run.stage, run.progress) == ("succeeded", "", "ready", 1.0)
    assert run.metrics["pairs"] + run.metrics["held_out_pairs"] == 24
    assert (run.run_dir / "part" / "reward.json").is_file()
    assert not (run.run_dir / "bundle").exists()
    assert ModelVersion.objects.count() == 0
    assert Release.objects.count() == 1
    assert registry.find_reward_run(0) == registry.find_reward_run(run.pk) == run
    # More answers at once than there are texts: the ppo run is told of the reward model and refuses right after.
    refused = work_on(queue_run("ppo", snapshot, batch_size=64))
    assert JobConfig.read(refused.run_dir).reward_model == run.run_dir
    assert (refused.state, "batch_size is 64, but there are" in refused.error) == ("failed", True)


@pytest.mark.parametrize(("number", "words"), [(0, "there is none"), (77, "run 77 is none")])
def test_ppo_without_a_reward_run_fails_in_words(snapshot: DatasetSnapshot, number: int, words: str) -> None:
    run = work_on(queue_run("ppo", snapshot, reward_run=number))
    assert run.state == "failed"
    assert f"PPO needs a reward run that has succeeded, and {words}: launch one of the kind reward" in run.error
