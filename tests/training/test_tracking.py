"""What is kept of a run: enough to make it again, and to say what it cost."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.training.toyruns import answer_rows, make_rows, write_data
from training import api
from training.models import DatasetSnapshot, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)


def call(*args: Any) -> str:
    out = io.StringIO()
    call_command(*map(str, args), stdout=out)
    return out.getvalue()


@pytest.fixture
def done(var_dir: Path, toys: Path) -> TrainingRun:
    """A run that was trained and judged by the real jobs."""
    api.ensure_starter_release(toys / "toy-1")
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(64), answer_rows())
    DatasetSnapshot.objects.create(content_hash="ab" * 32, uri=str(folder), rows=72)
    options = ("--option", "epochs=1", "--option", "batch_size=8", "--option", "learning_rate=1e-6")
    call("train", "bert", "--snapshot", "abab", "--here", *options)
    return api.list_runs()[0]


def test_export_holds_options_data_code_figures_and_cost(done: TrainingRun) -> None:
    record = json.loads(call("export_run", done.pk))
    assert (record["options"]["epochs"], record["options"]["seed"]) == (1, 13)  # a default is kept as well
    assert record["data"]["hash"] == "ab" * 32
    assert re.fullmatch(r"[0-9a-f]{12}\+?", record["code"]["heed"])
    assert {"torch", "transformers", "peft", "trl"} <= set(record["code"])
    assert record["release"] == "r0002"
    assert [point["name"] for point in record["series"]].count("loss") == 8
    assert "val_loss" in record["metrics"]
    assert record["cost"]["train_s"] > 0
    assert 100 < record["cost"]["peak_mb"] < 20_000
    assert record["gates"]


def test_the_next_estimate_rests_on_what_was_measured(done: TrainingRun) -> None:
    estimate = api.forecast_run(api.Wish("bert", {"epochs": 1, "batch_size": 8}, done.snapshot)).estimate
    assert estimate.measured_on == done.pk
    assert estimate.memory_mb == done.metrics["cost"]["peak_mb"]
    pace = done.metrics["cost"]["pace"]
    assert estimate.seconds == pytest.approx(done.metrics["cost"]["train_s"] + pace["rest_s"], rel=0.05)


def test_samples_say_how_many_answers_moved(done: TrainingRun) -> None:
    samples = done.metrics["samples"]
    assert samples["rows"] == len(answer_rows())
    assert len(samples["shown"]) == samples["better"] + samples["worse"]


def test_comparison_shows_what_differs(done: TrainingRun) -> None:
    other = api.start_run("bert", snapshot=done.snapshot, options={"epochs": 5}, cloned_from=done.pk)
    lines = api.compare_runs([done, other])
    differing = {line.name: line.values for line in lines["Options"] if line.differs}
    assert differing["epochs"] == [1, 5]
    assert "seed" not in differing
    printed = call("compare_runs", done.pk, other.pk)
    assert re.search(r"^epochs +1 +5$", printed, flags=re.M)
    assert "\nseed" not in printed
    with pytest.raises(CommandError, match="there is no run 7000"):
        call("compare_runs", done.pk, 7000)


def test_runs_are_listed_and_an_unknown_one_is_named(done: TrainingRun) -> None:
    assert re.search(rf"^ +{done.pk}  bert +succeeded  released +r0002 ", call("runs"))
    with pytest.raises(CommandError, match="there is no run 7000"):
        call("export_run", 7000)


def test_dry_run_queues_nothing(done: TrainingRun) -> None:
    told = call("train", "sft", "--dry-run", "--option", "quantise=8bit")
    assert "cannot run: The training worker has no GPU" in told
    assert api.list_runs().count() == 1


def test_new_freezes_a_snapshot(done: TrainingRun) -> None:
    call("train", "bert", "--snapshot", "new")
    assert api.list_runs()[0].snapshot_id != done.snapshot_id
    assert api.list_runs()[0].state == TrainingRun.State.QUEUED
