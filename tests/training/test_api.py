"""The door that the web side uses."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from django.conf import settings
from django.core.management import CommandError, call_command

from tests.training.toyruns import answer_rows, make_rows, write_data
from training import api, queue
from training.models import DatasetSnapshot, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)


def correction(text: str = "the bus was late") -> api.FeedbackRecord:
    return api.FeedbackRecord(
        text=text,
        text_hash=f"{hash(text) & 0xFFFF:064x}",
        verdict="corrected",
        judged_labels={},
        labels={"risk": "low"},
        annotator="p1",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        guideline_version="1",
        origin="web",
    )


@pytest.fixture
def snapshot(var_dir: Path) -> DatasetSnapshot:
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), answer_rows())
    return DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)


@pytest.fixture
def starter(var_dir: Path, toys: Path) -> api.Release:
    return api.ensure_starter_release(toys / "toy-1")


def test_the_same_feedback_freezes_into_the_same_snapshot(var_dir: Path) -> None:
    first = api.freeze_snapshot([correction()], by_id=None)
    again = api.freeze_snapshot(iter([correction()]), by_id=None)
    assert (first.pk, first.manifest["records"]) == (again.pk, 1)
    assert (Path(first.uri) / "train.jsonl").is_file()


def test_an_odd_snapshot_option_is_refused(var_dir: Path) -> None:
    with pytest.raises(api.ConfigError, match="unknown snapshot option"):
        api.freeze_snapshot([], by_id=None, options={"speed": 3})


def test_a_run_is_queued_for_the_training_worker(snapshot: DatasetSnapshot, starter: api.Release) -> None:
    broker = redis.from_url(settings.REDIS_URL)
    before = broker.llen("training")
    run = api.start_run("bert", snapshot=snapshot, options={"epochs": "2", "batch_size": ""})
    assert broker.llen("training") == before + 1
    assert (run.state, run.config["options"]) == ("queued", {"epochs": "2"})
    assert api.get_run(run.pk) == run == api.list_runs()[0]


def test_a_broker_that_is_away_costs_no_run(
    snapshot: DatasetSnapshot,
    starter: api.Release,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Celery("away", broker="redis://127.0.0.1:9/0", set_as_current=False) as away:
        monkeypatch.setattr(queue, "current_app", away)
        run = api.start_run("bert", snapshot=snapshot, options={})
    assert "the broker does not take training.tasks.run_training_task" in caplog.text
    assert TrainingRun.objects.get(pk=run.pk).state == "queued"


def test_an_odd_option_is_refused_before_anything_is_queued(snapshot: DatasetSnapshot, starter: api.Release) -> None:
    with pytest.raises(api.ConfigError, match="epochs is 0, expected at least 1"):
        api.start_run("bert", snapshot=snapshot, options={"epochs": 0})
    assert not TrainingRun.objects.exists()


def test_a_run_needs_a_release_to_be_measured_against(snapshot: DatasetSnapshot) -> None:
    with pytest.raises(api.NoServingRelease, match="load_starter"):
        api.start_run("bert", snapshot=snapshot, options={})


def test_load_starter_makes_the_first_release(var_dir: Path, toys: Path) -> None:
    out = io.StringIO()
    call_command("load_starter", str(toys / "toy-1"), stdout=out)
    assert out.getvalue() == "release toy-1 serves\n"


def test_load_starter_says_what_is_wrong_with_a_bundle(var_dir: Path) -> None:
    with pytest.raises(CommandError, match="no complete bundle"):
        call_command("load_starter", str(var_dir))


def train(*args: Any) -> str:
    out = io.StringIO()
    call_command("train", "bert", *args, stdout=out)
    return out.getvalue()


def test_the_command_line_trains_and_tells(snapshot: DatasetSnapshot, starter: api.Release) -> None:
    told = train("--here", "--option", "epochs=1", "--option", "learning_rate=1e-6")
    assert "succeeded released 100%" in told
    assert told.splitlines()[-1] == "release r0002 published"


def test_the_command_line_names_an_odd_option(snapshot: DatasetSnapshot, starter: api.Release) -> None:
    with pytest.raises(CommandError, match="unknown option 'speed'"):
        train("--option", "speed=3")
    with pytest.raises(CommandError, match="no snapshot 7000"):
        train("--snapshot", "7000")
    with pytest.raises(CommandError, match="--option epochs: expected NAME=VALUE"):
        train("--option", "epochs")
    assert "batch_size=32" in train("--list-options")
