from __future__ import annotations

import pytest

from feedback import ml
from feedback.models import AuditEvent
from tests.cast import setup_annotation, setup_cast, setup_document, setup_release
from tests.feedback.api.client import Program


@pytest.fixture
def ada(db: None) -> Program:
    return Program(setup_cast().ada)


class TestRuns:
    def test_launches_a_run_on_what_people_said(self, ada: Program) -> None:
        setup_annotation(ada.person, document=setup_document(text="corrected"), verdict="incorrect")
        answer = ada.post("runs", {"kind": "bert", "publishes": False})
        run = ml.list_runs().get()
        assert (answer.status, answer.body["id"], answer.body["state"]) == (201, run.pk, "queued")
        assert (run.publishes, run.created_by) == (False, ada.person)
        event = AuditEvent.objects.get(verb="start_run")
        assert event.data["snapshot"] == run.snapshot.content_hash

    @pytest.mark.parametrize("wanted", [{"kind": "magic"}, {"kind": "bert", "options": {"speed": 9}}])
    def test_rejects_an_unknown_kind_or_option(self, ada: Program, wanted: dict[str, object]) -> None:
        setup_release()
        answer = ada.post("runs", wanted)
        assert (answer.status, answer.body["error"]) == (400, "invalid_option")
        assert not ml.list_runs().exists()

    def test_needs_a_serving_release(self, ada: Program) -> None:
        answer = ada.post("runs", {"kind": "bert"})
        assert (answer.status, answer.body["error"]) == (409, "training_refused")

    def test_lists_shows_and_cancels(self, ada: Program) -> None:
        setup_release()
        pk = ada.post("runs", {"kind": "bert"}).body["id"]
        assert [run["id"] for run in ada.get("runs").body["results"]] == [pk]
        assert ada.get(f"runs/{pk}").body["kind"] == "bert"
        assert ada.post(f"runs/{pk}/cancel").body["state"] == "cancelled"
        answer = ada.post(f"runs/{pk}/cancel")
        assert (answer.status, answer.body["error"]) == (409, "training_refused")

    def test_unknown_run_is_not_found(self, ada: Program) -> None:
        assert ada.get("runs/0").status == ada.post("runs/0/cancel").status == 404


class TestReleases:
    def test_lists_the_newest_first(self, ada: Program) -> None:
        setup_release(name="one")
        setup_release(name="two")
        assert [release["name"] for release in ada.get("releases").body["results"]] == ["two", "one"]

    def test_what_serves_cannot_be_restored(self, ada: Program) -> None:
        answer = ada.post(f"releases/{setup_release().pk}/roll-back", {"reason": "worse"})
        assert (answer.status, answer.body["error"]) == (409, "training_refused")

    def test_roll_back_needs_a_reason(self, ada: Program) -> None:
        answer = ada.post(f"releases/{setup_release().pk}/roll-back", {})
        assert (answer.status, answer.body["rows"][0]["field"]) == (400, "reason")

    def test_unknown_release_is_not_found(self, ada: Program) -> None:
        assert ada.post("releases/0/roll-back", {"reason": "worse"}).status == 404
