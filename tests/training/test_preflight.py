"""What a run lacks is said before it is queued, with the cure."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.signals import worker_ready
from django.core.cache import cache

from tests.classifier.toys import TOY_BERT, TOY_LLAMA
from tests.training.toyruns import answer_rows, make_rows, write_data
from training import api, preflight
from training.estimates import Estimate
from training.jobs.config import parse_options
from training.machine import Machine
from training.models import DatasetSnapshot, TrainingRun
from training.tasks import report_machine_task

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_report() -> None:
    cache.delete(preflight.MACHINE_KEY)


@pytest.fixture
def snapshot(var_dir: Path, toys: Path) -> DatasetSnapshot:
    api.ensure_starter_release(toys / "toy-1")
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), answer_rows())
    return DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)


def refuse(kind: str, snapshot: DatasetSnapshot, options: Mapping[str, Any], base: str = "") -> str:
    """Why it is refused; nothing has been queued then."""
    with pytest.raises(api.RunRefused) as caught:
        api.start_run(kind, snapshot=snapshot, options=options, base=base)
    assert not TrainingRun.objects.exists()
    return str(caught.value)


def test_says_that_quantising_needs_a_gpu(snapshot: DatasetSnapshot) -> None:
    assert "no GPU, which quantise=4bit needs: leave quantise empty" in refuse("sft", snapshot, {"quantise": "4bit"})


def test_says_that_the_base_model_is_missing(snapshot: DatasetSnapshot, settings: Any, tmp_path: Path) -> None:
    settings.BASE_MODELS_DIR = tmp_path / "empty"
    assert f"no base model {TOY_BERT}: fetch it" in refuse("bert", snapshot, {})


def test_a_base_of_an_arm_that_does_not_serve_yet_is_fetched(snapshot: DatasetSnapshot) -> None:
    forecast = api.forecast_run(api.Wish("sft", {}, snapshot))  # toy-1 has no LLM
    assert forecast.refusal == ""
    assert "is fetched first" in forecast.lacks[0].text


def test_says_that_the_serving_arm_does_not_fit_on_another_base(snapshot: DatasetSnapshot) -> None:
    assert "does not fit on toy-other: set start_from to base" in refuse("bert", snapshot, {}, base="toy-other")


def test_says_that_a_base_is_of_the_other_sort(snapshot: DatasetSnapshot) -> None:
    reason = refuse("bert", snapshot, {"start_from": "base"}, base=TOY_LLAMA)
    assert f"{TOY_LLAMA} is no model for the bert arm" in reason


@pytest.mark.parametrize(
    ("kind", "file"), [("label_ppo", "rewards.jsonl"), ("kto", "kto.jsonl"), ("reward", "pairs.jsonl")]
)
def test_says_that_there_are_no_rows_of_the_sort(snapshot: DatasetSnapshot, kind: str, file: str) -> None:
    assert f"no rows in {file}" in refuse(kind, snapshot, {})


def test_ppo_wants_a_finished_reward_run(snapshot: DatasetSnapshot) -> None:
    assert "PPO needs a reward model" in refuse("ppo", snapshot, {})
    reward = TrainingRun.objects.create(kind="reward", snapshot=snapshot, state="failed")
    wish = api.Wish("ppo", {}, snapshot)
    assert "PPO needs a reward model" in api.forecast_run(wish).refusal
    reward.state = TrainingRun.State.SUCCEEDED
    reward.save(update_fields=["state"])
    assert "reward" not in api.forecast_run(wish).refusal
    assert "reward" in api.forecast_run(replace(wish, options={"reward_run": reward.pk + 1})).refusal


def test_says_that_a_tracker_is_not_installed(snapshot: DatasetSnapshot) -> None:
    machine = Machine(cpus=2, memory_mb=24_000, free_mb=9_000)
    (lack,) = preflight.check_machine(parse_options("sft", {"report_to": "mlflow"}), machine, Estimate(1, 1, 1, None))
    assert (lack.is_fatal, "no mlflow: pip install it there" in lack.text) == (True, True)


def test_full_disk_refuses_and_little_memory_warns() -> None:
    machine = Machine(cpus=2, memory_mb=1_000, free_mb=99)
    disk, memory = preflight.check_machine(parse_options("bert", {}), machine, Estimate(1, 2_000, 100, None))
    assert (disk.is_fatal, memory.is_fatal) == (True, False)
    assert "wants about 100 MB of disk, the training worker has 99 MB free" in disk.text
    assert "a smaller batch_size or max_tokens would help" in memory.text


def test_what_the_worker_reports_is_what_the_page_knows(snapshot: DatasetSnapshot) -> None:
    machine, seen_at = preflight.read_machine()
    assert seen_at is None
    assert "No training worker has reported yet" in api.forecast_run(api.Wish("bert", {}, snapshot)).lacks[-1].text
    report_machine_task()
    reported, seen_at = preflight.read_machine()
    assert seen_at is not None
    assert replace(reported, free_mb=0) == replace(machine, free_mb=0)
    assert {base.name: base.role for base in reported.bases} == {TOY_BERT: "bert", TOY_LLAMA: "llm"}
    assert api.forecast_run(api.Wish("bert", {}, snapshot)).lacks == ()


def test_a_run_carries_its_estimate(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options={})
    assert run.config["estimate"]["measured_on"] is None
    assert run.config["estimate"]["seconds"] > 0


class Worker:
    """As celery hands it over: what it takes is the app's choice of queues."""

    def __init__(self, app: Celery) -> None:
        self.app = app


@pytest.mark.parametrize(("queue", "reports"), [("training", True), ("default", False)])
def test_a_worker_that_takes_runs_reports_at_its_start(var_dir: Path, queue: str, reports: bool) -> None:
    with Celery("ready", set_as_current=False) as app:
        app.amqp.queues.select([queue])
        worker_ready.send(sender=Worker(app))
    assert (preflight.read_machine()[1] is not None) is reports
