"""The wizard: what it opens with, what it says before anything is queued, and what it queues."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client

from feedback import ml
from feedback.models import AuditEvent
from tests.cast import Cast, setup_annotation, setup_release
from tests.e2e.content import setup_runs
from tests.feedback.views.test_training_pages import fill
from training.models import DatasetSnapshot, TrainingRun


@pytest.fixture
def runs(cast: Cast) -> list[TrainingRun]:
    setup_release()
    return setup_runs(cast)


@pytest.fixture
def snapshot(cast: Cast) -> DatasetSnapshot:
    """A frozen one, with files."""
    setup_release()
    return ml.freeze_snapshot([], by_id=cast.ada.pk)


def test_unknown_kind_is_not_there(ada: Client) -> None:
    assert ada.get("/training/new/magic/").status_code == ada.post("/training/new/magic/").status_code == 404
    assert ada.get("/training/new/rules/").status_code == 404


def test_says_what_a_run_takes_before_it_is_queued(ada: Client, snapshot: DatasetSnapshot) -> None:
    html = ada.get("/training/new/bert/").content.decode()
    assert "of memory, about" in html
    assert "Assumed for two CPU cores" in html
    assert "No training worker has reported yet" in html or "The training worker has" in html


def test_estimating_queues_nothing(ada: Client, snapshot: DatasetSnapshot) -> None:
    values = fill(epochs=100, snapshot=snapshot.content_hash)
    page = ada.post("/training/new/bert/", values | {"check": "1"}).content.decode()
    fragment = ada.post("/training/new/bert/", values, headers={"HX-Request": "true"}).content.decode()
    rows = snapshot.manifest["rows"]["train"]
    for html in (page, fragment):
        assert f"<b>{rows}</b><span>rows to learn from</span>" in html
    assert "<form" in page
    assert "<form" not in fragment
    assert not TrainingRun.objects.exists()


def test_half_typed_option_gets_words_in_place_of_an_estimate(ada: Client, snapshot: DatasetSnapshot) -> None:
    answer = ada.post("/training/new/bert/", fill(epochs=""), headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert b"when every option can be read" in answer.content


def test_says_what_the_worker_lacks_and_queues_nothing(ada: Client, snapshot: DatasetSnapshot) -> None:
    answer = ada.post("/training/new/sft/", fill("sft", quantise="4bit", snapshot=snapshot.content_hash))
    assert answer.status_code == 409
    assert "no GPU, which quantise=4bit needs" in answer.content.decode()
    assert not TrainingRun.objects.exists()


def test_says_that_there_are_no_verdicts_yet_and_counts_them_once_there_are(ada: Client, cast: Cast) -> None:
    setup_release()
    assert "no rows in kto.jsonl" in ada.get("/training/new/kto/").content.decode()
    setup_annotation(cast.ana)
    html = ada.get("/training/new/kto/").content.decode()
    assert "no rows in kto.jsonl" not in html
    assert "<b>1</b><span>rows to learn from</span>" in html


def test_a_chosen_snapshot_is_trained_on_as_it_is(ada: Client, cast: Cast, snapshot: DatasetSnapshot) -> None:
    setup_annotation(cast.ana)  # would make another snapshot
    ada.post("/training/new/bert/", fill(snapshot=snapshot.content_hash, publishes="on"))
    run = TrainingRun.objects.get()
    assert (run.snapshot, run.publishes, DatasetSnapshot.objects.count()) == (snapshot, True, 1)
    assert AuditEvent.objects.get(verb="start_run").data["snapshot"] == snapshot.content_hash


def test_clone_opens_with_the_options_and_data_of_the_run(ada: Client, cast: Cast, snapshot: DatasetSnapshot) -> None:
    options = {"epochs": 7, "class_weights": True, "start_from": "base"}
    original = TrainingRun.objects.create(kind="bert", snapshot=snapshot, config={"options": options}, publishes=False)
    address = f"/training/new/bert/?clone={original.pk}"
    html = ada.get(address).content.decode()
    assert re.search(r'name="epochs" value="7"', html)
    assert re.search(r'name="class_weights"[^>]* checked', html)
    assert re.search(rf'<option value="{snapshot.content_hash}" selected>', html)
    assert not re.search(r'name="publishes"[^>]* checked', html)
    ada.post(address, fill(epochs=8, snapshot=snapshot.content_hash))
    assert TrainingRun.objects.order_by("-pk")[0].config["cloned_from"] == original.pk


def test_clone_of_another_kind_is_refused(ada: Client, runs: list[TrainingRun]) -> None:
    assert ada.get(f"/training/new/sft/?clone={runs[0].pk}").status_code == 400
    assert ada.get("/training/new/bert/?clone=99999").status_code == 404


def test_queue_shows_who_comes_next(ada: Client, runs: list[TrainingRun]) -> None:
    html = ada.get("/training/").content.decode()
    (queue,) = re.findall(r"<h2>Queue</h2>(.*?)</table>", html, flags=re.S)
    assert re.findall(r"/training/(\d+)/", queue)[0] == str(runs[0].pk)
    assert "1 run before it" in queue


def test_comparison_puts_options_data_code_and_figures_side_by_side(ada: Client, runs: list[TrainingRun]) -> None:
    other = runs[2]
    other.config = {**other.config, "options": {"epochs": 5}}
    other.save(update_fields=["config"])
    html = ada.get(f"/training/compare/?run={runs[1].pk}&run={other.pk}").content.decode()
    cells = {
        name: re.findall(r"<td[^>]*>([^<]*)</td>", row)
        for name, row in re.findall(r'<tr[^>]*><th scope="row">([^<]*)(.*?)</tr>', html, flags=re.S)
    }
    assert cells["epochs"] == ["3", "5"]
    options = html[html.index("<h2>Options") :]
    places = [options.index(part) for part in ('<th scope="row">epochs', "What is the same", '<th scope="row">seed')]
    assert places == sorted(places)
    assert cells["data hash"] == ["a" * 12] * 2
    assert cells["code version"] == ["1f0c2ab94d7e"] * 2
    assert cells["cost.train s"] == ["–", "431"]
    assert html.count('<svg class="chart"') == 1
    assert html.count("<polyline") == 2


def test_another_curve_can_be_chosen(ada: Client, runs: list[TrainingRun]) -> None:
    html = ada.get(f"/training/compare/?run={runs[1].pk}&run={runs[2].pk}&curve=kl").content.decode()
    assert f"Kl of runs {runs[1].pk}, {runs[2].pk}" in html
    assert html.count("<polyline") == 1  # the other run has no such curve


@pytest.mark.parametrize("chosen", ["", "run={0}", "run={0}&run={0}", "run={0}&run=x"])
def test_one_run_alone_is_no_comparison(ada: Client, runs: list[TrainingRun], chosen: str) -> None:
    assert ada.get("/training/compare/?" + chosen.format(runs[0].pk)).status_code == 400


def test_run_page_draws_losses_rewards_and_kl_apart(ada: Client, runs: list[TrainingRun]) -> None:
    html = ada.get(f"/training/{runs[2].pk}/").content.decode()
    titles = re.findall(r"<title id=[^>]*>(.*?) of run", html)
    assert titles == ["Loss", "Reward", "KL to where it started"]


def test_run_page_shows_samples_with_their_text_folded_away(ada: Client, runs: list[TrainingRun]) -> None:
    run = runs[2]
    data = run.run_dir / "data"
    data.mkdir(parents=True)
    text = "wombats gather quietly"
    row = {"id": "plain-f07-0412", "text": text, "labels": {"risk": "low"}, "source": "bank:plain"}
    (data / "test.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    html = ada.get(f"/training/{run.pk}/").content.decode()
    assert "emotion: stress → sadness (right: stress)" in html
    assert re.search(rf"<details><summary>Show</summary><p>{text}</p></details>", html)
    assert "on another machine" in html  # the row whose text is not there


def test_complete_checkpoints_alone_are_listed(ada: Client, runs: list[TrainingRun]) -> None:
    folder = runs[0].run_dir / "checkpoints"
    for name in ("step-0000050-0000", "checkpoint-100", "step-0000150-0001"):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights.safetensors").write_bytes(b"0" * 2_000_000)
    for name in ("step-0000050-0000", "checkpoint-100"):
        (folder / name / "COMPLETE").touch()
    html = ada.get(f"/training/{runs[0].pk}/").content.decode()
    assert "Checkpoints (2)" in html
    assert [each.step for each in ml.list_checkpoints(runs[0])] == [100, 50]
    assert "2.0 MB" in html


def test_everything_that_is_kept_can_be_downloaded(ada: Client, runs: list[TrainingRun]) -> None:
    answer = ada.get(f"/training/{runs[2].pk}/run.json")
    assert answer["content-disposition"] == f'attachment; filename="run-{runs[2].pk}.json"'
    record = answer.json()
    assert (record["data"]["hash"], record["code"]["torch"], record["release"]) == ("a" * 64, "2.13.0", "r0042")
    assert record["cost"]["peak_mb"] == 1384.0
    assert "samples" not in record["metrics"]
