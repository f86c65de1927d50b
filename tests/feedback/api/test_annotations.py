from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from feedback.models import Annotation
from tests.cast import LABELS, Cast, setup_annotation, setup_cast, setup_document
from tests.feedback.api.client import Program


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


@pytest.fixture
def ana(cast: Cast) -> Program:
    return Program(cast.ana)


def body(**fields: Any) -> dict[str, Any]:
    return {"verdict": "correct", "idempotency_key": str(uuid4())} | fields


class TestAnnotating:
    def test_claims_then_answers(self, ana: Program) -> None:
        setup_document(labels={"risk": "low"})
        [document] = ana.post("annotations/claim", {"count": 5}).body
        answer = ana.post("annotations", body(document=document["id"], verdict="corrected", labels={"risk": "none"}))
        assert answer.status == 201
        assert (answer.body["labels"], answer.body["judged_labels"]["risk"]) == (LABELS, "low")
        assert Annotation.objects.get().origin == "api"

    def test_claims_one_when_no_count_is_given(self, ana: Program) -> None:
        setup_document()
        setup_document()
        assert len(ana.post("annotations/claim", {}).body) == 1

    @pytest.mark.parametrize("count", [0, 51, "many"])
    def test_rejects_an_odd_count(self, ana: Program, count: Any) -> None:
        answer = ana.post("annotations/claim", {"count": count})
        assert (answer.status, answer.body["rows"][0]["field"]) == (400, "count")

    def test_sent_again_it_is_the_same_answer(self, ana: Program) -> None:
        given = body(document=setup_document().pk)
        assert ana.post("annotations", given).body == ana.post("annotations", given).body
        assert Annotation.objects.count() == 1

    def test_second_person_gets_a_conflict(self, cast: Cast, ana: Program) -> None:
        document = setup_document()
        setup_annotation(cast.bo, document=document)
        answer = ana.post("annotations", body(document=document.pk))
        assert (answer.status, answer.body["error"]) == (409, "answer_conflict")

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ({"idempotency_key": "none"}, "invalid_input"),
            ({"idempotency_key": None}, "invalid_input"),
            ({"verdict": "splendid"}, "invalid_input"),
            ({"verdict": "corrected"}, "invalid_input"),
            ({"verdict": "corrected", "labels": {"risk": "extreme"}}, "unknown_label"),
            ({"verdict": "corrected", "labels": {"mood": "sad"}}, "unknown_label"),
            ({"verdict": "corrected", "labels": ["risk"]}, "invalid_input"),
            ({"comment": "a\x00b"}, "invalid_input"),
            ({"active_ms": 10**12}, "invalid_input"),
            ({"prediction": 10**30}, "invalid_input"),
        ],
    )
    def test_rejects_what_does_not_fit(self, ana: Program, fields: dict[str, Any], error: str) -> None:
        answer = ana.post("annotations", body(document=setup_document().pk, **fields))
        assert (answer.status, answer.body["error"]) == (400, error)
        assert not Annotation.objects.exists()

    @pytest.mark.parametrize("pk", [1, 10**30])
    def test_rejects_a_document_that_is_not_there(self, ana: Program, pk: int) -> None:
        assert ana.post("annotations", body(document=pk)).status == 404

    def test_undo_keeps_the_row_as_undone(self, cast: Cast, ana: Program) -> None:
        annotation = setup_annotation(cast.ana)
        answer = ana.delete(f"annotations/{annotation.pk}")
        assert answer.status == 200
        assert answer.body["undone_at"] is not None

    def test_undo_of_anothers_answer_is_not_found(self, cast: Cast, ana: Program) -> None:
        assert ana.delete(f"annotations/{setup_annotation(cast.bo).pk}").status == 404


class TestExchange:
    @pytest.fixture
    def ada(self, cast: Cast) -> Program:
        return Program(cast.ada)

    def test_exported_file_can_be_imported(self, cast: Cast, ada: Program) -> None:
        setup_annotation(cast.ana, comment="why")
        exported = ada.get("feedback/export").body
        answer = ada.post("feedback/import", exported)
        assert (answer.status, answer.body["accepted"]) == (201, 1)
        assert ada.get("feedback/export", format="feedback").body == exported * 2

    def test_full_records_are_lines(self, cast: Cast, ada: Program) -> None:
        setup_annotation(cast.ana, verdict="skip")
        response = ada.client.get(
            "/api/v1/feedback/export?format=jsonl", headers={"authorization": f"Bearer {ada.token}"}
        )
        [line] = b"".join(response).splitlines()
        assert json.loads(line)["verdict"] == "skip"
        assert response["Content-Type"] == "application/x-ndjson"

    def test_rejects_an_unknown_format(self, ada: Program) -> None:
        answer = ada.get("feedback/export", format="xlsx")
        assert (answer.status, answer.body["error"]) == (400, "invalid_input")

    def test_takes_an_uploaded_file_and_names_its_bad_rows(self, ada: Program) -> None:
        rows = [{"text": "good", "correct_labels": "risk: none"}, {"text": "bad", "correct_labels": "risk: extreme"}]
        upload = SimpleUploadedFile("feedback.json", json.dumps(rows).encode())
        response = ada.client.post(
            "/api/v1/feedback/import", {"file": upload}, headers={"authorization": f"Bearer {ada.token}"}
        )
        assert (response.status_code, response.json()["accepted"]) == (201, 1)
        assert response.json()["problems"][0]["row"] == 2

    def test_rejects_a_broken_file(self, ada: Program) -> None:
        answer = ada.send("POST", "feedback/import", data=b"[{]", content_type="application/json")
        assert (answer.status, answer.body["error"]) == (400, "invalid_input")
