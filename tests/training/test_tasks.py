"""Beat tasks: what a lost message, a lost worker or a lost swap costs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from classifier.client import InferenceClient
from tests.inference import TOKEN, InferenceProcess, wait_until
from training import api, registry, supervisor, tasks
from training.models import DatasetSnapshot, Release, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(tasks, "enqueue_run", found.append)
    return found


@pytest.fixture
def run(var_dir: Path, toys: Path) -> TrainingRun:
    api.ensure_starter_release(toys / "toy-1")
    snapshot = DatasetSnapshot.objects.create(
        content_hash="0" * 64, uri="nowhere", rows=1, manifest={"rows": {"train": 1}}
    )
    return api.start_run("bert", snapshot=snapshot, options={})


def age(run: TrainingRun, **fields: Any) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(**fields)


def test_a_run_queued_for_long_is_sent_again_but_not_all_the_time(run: TrainingRun, sent: list[int]) -> None:
    tasks.requeue_lost_runs_task()
    assert sent == []
    age(run, created_at=timezone.now() - timedelta(minutes=5))
    tasks.requeue_lost_runs_task()
    tasks.requeue_lost_runs_task()
    assert sent == [run.pk]


def test_a_run_whose_worker_is_lost_is_sent_again(run: TrainingRun, sent: list[int]) -> None:
    assert supervisor.claim(run.pk)
    tasks.requeue_lost_runs_task()
    assert sent == []
    age(run, lease_expires_at=timezone.now() - timedelta(seconds=1))
    tasks.requeue_lost_runs_task()
    assert sent == [run.pk]


def test_an_ended_run_is_left_alone(run: TrainingRun, sent: list[int]) -> None:
    api.cancel_run(run.pk)
    age(run, created_at=timezone.now() - timedelta(minutes=5))
    tasks.requeue_lost_runs_task()
    assert sent == []


def test_a_run_on_a_snapshot_that_is_gone_says_so(run: TrainingRun) -> None:
    tasks.run_training_task(run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == ("failed", "the snapshot is no longer in nowhere: freeze a new one")


@pytest.fixture
def inference(settings: Any, var_dir: Path, toys: Path, tmp_path: Path) -> Iterator[InferenceProcess]:
    """A real inference server in its own folder, so that it follows no pointer of ours."""
    server = InferenceProcess(tmp_path / "inference")
    bundle = server.make_bundle("toy-0", seed=5)
    server.point_to("toy-0", bundle)
    server.start()
    try:
        wait_until(lambda: server.client().release().release == "toy-0")
        settings.INFERENCE_URL, settings.INFERENCE_TOKEN = server.url, TOKEN
        yield server
    finally:
        server.stop()


def test_the_inference_server_is_brought_to_the_newest_release(inference: InferenceProcess, toys: Path) -> None:
    release = api.ensure_starter_release(toys / "toy-1")
    tasks.converge_inference_task()
    assert inference.client().release().release == "toy-1"
    release.refresh_from_db()
    assert release.served_at is not None


def test_an_inference_server_that_is_away_is_waited_for(var_dir: Path, toys: Path, settings: Any) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    release = api.ensure_starter_release(toys / "toy-1")
    tasks.converge_inference_task()
    release.refresh_from_db()
    assert release.served_at is None


def test_a_refused_release_is_marked_and_not_offered_again_at_once(
    inference: InferenceProcess, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = api.ensure_starter_release(toys / "toy-1")
    (registry.bundle_path(release) / "prompt.txt").write_text("altered", encoding="utf-8")
    offers: list[str] = []
    swap = InferenceClient.swap

    def counting(self: InferenceClient, **given: Any) -> Any:
        offers.append(given["release"])
        return swap(self, **given)

    monkeypatch.setattr(InferenceClient, "swap", counting)
    tasks.converge_inference_task()
    tasks.converge_inference_task()
    assert offers == ["toy-1"]
    assert "altered" in Release.objects.get(pk=release.pk).report["refused"]
    assert inference.client().release().release == "toy-0"
