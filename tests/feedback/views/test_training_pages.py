from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from feedback import ml
from feedback.plots import draw_series
from feedback.views.runs import show_run
from tests.cast import Cast, setup_annotation, setup_release
from tests.e2e.content import setup_content, setup_runs
from training.models import Release, TrainingRun


@pytest.fixture
def runs(cast: Cast) -> list[TrainingRun]:
    setup_release()
    return setup_runs(cast)


def test_form_offers_every_option_with_its_default_and_meaning(ada: Client) -> None:
    html = ada.get("/training/new/bert/").content.decode()
    for spec in ml.run_options("bert"):
        assert f'name="{spec.name}"' in html
        assert spec.help[1:20].split(";")[0] in html


def test_list_offers_every_kind_with_its_meaning(ada: Client) -> None:
    html = ada.get("/training/").content.decode()
    for name, kind in ml.list_kinds().items():
        assert f'href="/training/new/{name}/"' in html
        assert kind.meaning[1:] in html
    assert "/training/new/rules/" not in html


def fill(kind: str = "bert", **values: Any) -> dict[str, Any]:
    """What the form sends with its defaults; an unticked box sends nothing."""
    defaults = {spec.name: spec.default for spec in ml.run_options(kind) if spec.default is not False}
    return defaults | {"snapshot": "new", "base": ""} | values


def test_list_counts_what_would_be_trained(ada: Client, cast: Cast) -> None:
    assert b"There is no feedback yet" in ada.get("/training/").content
    setup_annotation(cast.ana)
    assert b"<b>1</b><span>answers that say what is right</span>" in ada.get("/training/").content


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", "0"), ("epochs", "many"), ("learning_rate", "7"), ("start_from", "moon")]
)
def test_odd_option_is_refused_beside_its_field(ada: Client, cast: Cast, name: str, value: str) -> None:
    setup_release()
    response = ada.post("/training/new/bert/", fill(**{name: value}))
    assert response.status_code == 400
    assert f'id="id_{name}_error"' in response.content.decode()
    assert not TrainingRun.objects.exists()


def test_launch_queues_a_run_and_leads_to_its_page(ada: Client, cast: Cast) -> None:
    setup_release()
    setup_annotation(cast.ana)
    response = ada.post("/training/new/bert/", fill(epochs=2))
    run = TrainingRun.objects.get()
    assert response["Location"] == f"/training/{run.pk}/"
    assert not run.publishes  # the box was not ticked


def test_page_and_fragment_of_a_run_are_one_view(ada: Client, runs: list[TrainingRun]) -> None:
    page = ada.get(f"/training/{runs[0].pk}/").content.decode()
    fragment = ada.get(f"/training/{runs[0].pk}/", headers={"HX-Request": "true"})
    assert 'hx-trigger="every 2s"' in page
    assert fragment.status_code == 200
    assert b"<nav" not in fragment.content
    assert "42 %" in page
    assert "about 3 min left" in page


def test_fragment_of_an_ended_run_stops_the_asking(ada: Client, runs: list[TrainingRun]) -> None:
    _, failed, done = runs
    for run in (failed, done):
        assert ada.get(f"/training/{run.pk}/", headers={"HX-Request": "true"}).status_code == 286
        assert "hx-trigger" not in ada.get(f"/training/{run.pk}/").content.decode()


def test_failed_run_shows_why_and_the_last_lines(ada: Client, runs: list[TrainingRun]) -> None:
    html = ada.get(f"/training/{runs[1].pk}/").content.decode()
    assert "It ran out of memory" in html or "it ran out of memory" in html
    assert "MemoryError" in html


def test_finished_run_shows_gates_and_its_release(ada: Client, runs: list[TrainingRun]) -> None:
    html = ada.get(f"/training/{runs[2].pk}/").content.decode()
    assert "All 3 gates passed." in html
    assert "r0042" in html


def test_stages_say_where_a_run_stands(runs: list[TrainingRun]) -> None:
    def states(run: TrainingRun) -> list[str]:
        return [stage.state for stage in show_run(run).stages]

    running, failed, done = runs
    assert states(running) == ["done", "now", "ahead", "ahead", "ahead"]
    assert states(failed) == ["done", "stopped", "ahead", "ahead", "ahead"]
    assert states(done) == ["done"] * 5
    running.stage = "evaluate candidate"
    assert states(running) == ["done", "done", "now", "ahead", "ahead"]


def test_run_refused_by_a_gate_stops_at_the_gate(runs: list[TrainingRun]) -> None:
    run = runs[0]
    run.state, run.stage = TrainingRun.State.SUCCEEDED, "refused by a gate"
    run.metrics = {"gates": [{"name": "missed_risk", "passed": False, "value": 0.2, "bar": 0.1, "why": "worse"}]}
    shown = show_run(run)
    assert [stage.state for stage in shown.stages] == ["done", "done", "done", "stopped", "ahead"]
    assert shown.verdict.startswith("1 of 1 gates failed: missed_risk")


def test_cancel_is_asked_for_once(ada: Client, runs: list[TrainingRun]) -> None:
    assert ada.post(f"/training/{runs[0].pk}/cancel/")["Location"] == f"/training/{runs[0].pk}/"
    html = ada.get(f"/training/{runs[0].pk}/").content.decode()
    assert "Stopping…" in html


def test_ended_run_cannot_be_cancelled(ada: Client, runs: list[TrainingRun]) -> None:
    assert ada.post(f"/training/{runs[1].pk}/cancel/").status_code == 409


def test_releases_say_what_serves_and_that_the_server_is_away(ada: Client, runs: list[TrainingRun]) -> None:
    html = ada.get("/releases/").content.decode()
    assert "<b>r0042</b>" in html
    assert "The inference server does not answer" in html


def test_roll_back_wants_a_reason(ada: Client, runs: list[TrainingRun]) -> None:
    first = Release.objects.order_by("id")[0]
    response = ada.post(f"/releases/{first.pk}/roll-back/", {"reason": " "})
    assert response.status_code == 400
    assert Release.objects.count() == 2


def test_moderators_do_not_train(mo: Client, runs: list[TrainingRun]) -> None:
    for path in ("/training/", f"/training/{runs[0].pk}/", "/releases/"):
        assert mo.get(path).status_code == 403


def points(name: str, *values: float) -> list[dict[str, Any]]:
    return [{"step": step, "name": name, "value": value} for step, value in enumerate(values, start=1)]


def test_chart_waits_for_two_points() -> None:
    assert draw_series([], ("loss",), title="Loss") is None
    assert draw_series(points("loss", 1.0), ("loss",), title="Loss") is None


def test_chart_draws_high_values_higher() -> None:
    chart = draw_series(points("loss", 2.0, 1.0), ("loss",), title="Loss")
    assert chart is not None
    first, last = ([float(n) for n in pair.split(",")] for pair in chart.lines[0].points.split())
    assert first[0] < last[0]
    assert first[1] < last[1]  # SVG counts downwards
    assert chart.lines[0].last == 1.0


def test_chart_of_equal_values_is_flat() -> None:
    chart = draw_series(points("loss", 1.0, 1.0), ("loss",), title="Loss")
    assert chart is not None
    assert len({pair.split(",")[1] for pair in chart.lines[0].points.split()}) == 1


def test_long_series_is_thinned_but_keeps_its_newest_point() -> None:
    chart = draw_series(points("loss", *[1 / n for n in range(1, 2002)]), ("loss",), title="Loss")
    assert chart is not None
    assert len(chart.lines[0].points.split()) <= 250
    assert chart.lines[0].last == pytest.approx(1 / 2001)


def test_labels_of_close_lines_do_not_cover_each_other() -> None:
    chart = draw_series(points("loss", 2, 1) + points("val_loss", 2, 1), ("loss", "val_loss"), title="Loss")
    assert chart is not None
    one, other = chart.lines
    assert other.label_y - one.label_y >= 12


def test_pages_open_with_a_days_content(ada: Client, cast: Cast) -> None:
    setup_content(cast)
    assert ada.get("/training/").status_code == 200
