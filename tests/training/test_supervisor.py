"""The supervisor with a real database and real jobs on toy models."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from classifier import api as classifier_api
from classifier.bundle import manifest_sha256
from tests.classifier.toys import make_bundle
from tests.inference import wait_until
from tests.training.toyruns import ANSWERS, ROOT, answer_rows, job_pids, make_rows, read_done, write_data
from training import api, registry, supervisor
from training.jobs.config import read_json
from training.models import DatasetSnapshot, Release, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

State = TrainingRun.State
GENTLE = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-6}
"""Too gentle to change an answer: the toy starter's own answers stay, and every gate passes."""
LONG = {**GENTLE, "epochs": 100, "batch_size": 1, "checkpoint_steps": 1, "patience": 0}


@pytest.fixture
def snapshot(var_dir: Path, toys: Path) -> DatasetSnapshot:
    """A snapshot of few rows, and the toy bundle as the starter release."""
    api.ensure_starter_release(toys / "toy-1")
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), answer_rows())
    return DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)


def run_in_thread(run_id: int) -> threading.Thread:
    def work() -> None:
        try:
            supervisor.supervise(run_id)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_for(run: TrainingRun, condition: Callable[[], bool]) -> None:
    wait_until(condition, timeout_s=90)
    run.refresh_from_db()


def test_a_run_ends_in_a_release(snapshot: DatasetSnapshot, var_dir: Path) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=GENTLE)
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert (run.state, run.error, run.progress, run.stage) == (State.SUCCEEDED, "", 1.0, "released")
    release = api.serving_release()
    assert release is not None
    assert (release.name, release.version and release.version.run_id) == ("r0002", run.pk)
    assert [gate["name"] for gate in release.report["gates"]] == [
        "five statements",
        "false alarms",
        "macro F1",
    ]
    assert [point["step"] for point in run.series if point["name"] == "loss"] == [1, 2]
    assert "gate five statements: passed" in run.log_tail
    # What serves is what was judged, and the pointer names it.
    assert classifier_api.serving_bundle() == ("r0002", registry.bundle_path(release))
    assert manifest_sha256(run.run_dir / "bundle") == release.manifest_hash
    supervisor.supervise(run.pk)
    assert Release.objects.count() == 2


def test_a_run_that_does_not_publish_leaves_the_history_alone(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=GENTLE, publishes=False)
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert (run.state, run.stage) == (State.SUCCEEDED, "ready")
    assert run.version.arm == "bert"
    assert Release.objects.count() == 1


def test_a_candidate_that_fails_a_gate_is_not_released(snapshot: DatasetSnapshot) -> None:
    # Far too large steps: what the toy starter knew is gone.
    run = api.start_run("bert", snapshot=snapshot, options={**GENTLE, "learning_rate": 0.1, "epochs": 4})
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert (run.state, run.stage) == (State.SUCCEEDED, "refused by a gate")
    assert run.error.startswith("Not released: five statements is ")
    assert Release.objects.count() == 1


def test_a_failure_shows_its_reason_and_the_last_lines(snapshot: DatasetSnapshot) -> None:
    (Path(snapshot.uri) / "val.jsonl").write_text("{}\nnot json\n", encoding="utf-8")
    run = api.start_run("bert", snapshot=snapshot, options=GENTLE)
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (State.FAILED, "val.jsonl:1: lacks 'text'")
    assert run.log_tail.splitlines()[-1] == "error: val.jsonl:1: lacks 'text'"
    assert run.lease_token is None


def test_cancelling_writes_a_checkpoint_and_stops_the_job(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options={**LONG, "checkpoint_steps": 100_000})
    thread = run_in_thread(run.pk)
    wait_for(run, lambda: read_done(run.run_dir) > 0)
    api.cancel_run(run.pk)
    thread.join(60)
    run.refresh_from_db()
    assert (run.state, run.stage) == (State.CANCELLED, "cancelled")
    assert job_pids(run.run_dir) == []
    assert list((run.run_dir / "checkpoints").glob("step-*/COMPLETE"))


def test_a_job_that_will_not_stop_is_killed_after_the_grace(snapshot: DatasetSnapshot, settings: Any) -> None:
    settings.RUN_CANCEL_GRACE_S = 1
    run = api.start_run("bert", snapshot=snapshot, options=LONG)
    thread = run_in_thread(run.pk)
    wait_for(run, lambda: read_done(run.run_dir) > 0)
    (pid,) = job_pids(run.run_dir)
    os.kill(pid, signal.SIGSTOP)
    api.cancel_run(run.pk)
    thread.join(60)
    run.refresh_from_db()
    assert run.state == State.CANCELLED
    assert job_pids(run.run_dir) == []


def test_a_queued_run_is_cancelled_without_a_worker(snapshot: DatasetSnapshot) -> None:
    run = api.cancel_run(api.start_run("bert", snapshot=snapshot, options=GENTLE).pk)
    assert run.state == State.CANCELLED
    supervisor.supervise(run.pk)
    assert not run.run_dir.exists()
    with pytest.raises(api.RunEnded):
        api.cancel_run(run.pk)


def test_a_duplicate_delivery_returns_at_once(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=GENTLE)
    assert supervisor.claim(run.pk) is not None
    before = TrainingRun.objects.values().get(pk=run.pk)
    supervisor.supervise(run.pk)
    assert TrainingRun.objects.values().get(pk=run.pk) == before
    assert not run.run_dir.exists()


def test_one_of_many_claimers_gets_the_run(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=GENTLE)
    start, leases = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        leases.append(supervisor.claim(run.pk))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([lease for lease in leases if lease is not None]) == 1
    run.refresh_from_db()
    assert run.attempt == 1


def test_a_lost_lease_kills_the_job_and_writes_nothing(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=LONG)
    thread = run_in_thread(run.pk)
    wait_for(run, lambda: read_done(run.run_dir) > 0)
    other = uuid.uuid4()
    TrainingRun.objects.filter(pk=run.pk).update(lease_token=other)
    thread.join(60)
    run.refresh_from_db()
    assert job_pids(run.run_dir) == []
    assert (run.state, run.lease_token) == (State.RUNNING, other)


def start_supervisor_process(run: TrainingRun) -> "subprocess.Popen[bytes]":
    """A worker of its own, on the test database."""
    script = f"import django; django.setup(); from training.supervisor import supervise; supervise({run.pk})"
    server = os.environ["DATABASE_URL"]
    name = str(connection.settings_dict["NAME"])
    base, _, query = server.partition("?")
    url = f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    env = {**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=env)


def test_an_orphan_dies_with_its_supervisor_and_the_next_attempt_resumes(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options={**LONG, "epochs": 8})
    worker = start_supervisor_process(run)
    wait_for(run, lambda: read_done(run.run_dir) >= 3)
    assert len(job_pids(run.run_dir)) == 1
    worker.kill()
    worker.wait()
    wait_until(lambda: job_pids(run.run_dir) == [], timeout_s=5)
    run.refresh_from_db()
    assert run.state == State.RUNNING
    # Its lease still stands: nobody may touch it yet.
    assert supervisor.claim(run.pk) is None
    TrainingRun.objects.filter(pk=run.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert (run.state, run.attempt, run.error) == (State.SUCCEEDED, 2, "")
    events = [json.loads(line) for line in (run.run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["text"] for event in events if event.get("text", "").startswith("going on from step")]
    assert read_json(run.run_dir / "manifest.json")["steps"] == 128


def test_a_job_stopped_from_outside_goes_back_into_the_queue(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=LONG)
    thread = run_in_thread(run.pk)
    wait_for(run, lambda: read_done(run.run_dir) > 0)
    os.kill(job_pids(run.run_dir)[0], signal.SIGTERM)
    thread.join(60)
    run.refresh_from_db()
    assert (run.state, run.attempt, run.lease_token) == (State.QUEUED, 0, None)


def test_a_run_whose_workers_die_again_and_again_is_given_up(snapshot: DatasetSnapshot) -> None:
    run = api.start_run("bert", snapshot=snapshot, options=GENTLE)
    TrainingRun.objects.filter(pk=run.pk).update(attempt=supervisor.MAX_ATTEMPTS)
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert run.state == State.FAILED
    assert "its worker was lost 5 times" in run.error


def test_an_arm_finished_after_another_release_is_put_into_that_one(
    snapshot: DatasetSnapshot, toys: Path, tmp_path: Path
) -> None:
    run = api.start_run("bert", snapshot=snapshot, options={**GENTLE, "batch_size": 1})
    thread = run_in_thread(run.pk)
    wait_for(run, lambda: read_done(run.run_dir) > 0)
    newer = make_bundle(tmp_path, name="toy-2", seed=2, llm=False, answers=ANSWERS)
    publication = registry.Publication(bundle=newer, kind=Release.Kind.TRAINING)
    registry.publish_release(publication, expected=api.serving_release())
    thread.join(120)
    run.refresh_from_db()
    assert (run.state, run.error, run.metrics["release"]) == (State.SUCCEEDED, "", "r0003")
    report = read_json(run.run_dir / "report.json")
    assert report["baseline_manifest_sha256"] == manifest_sha256(newer)
