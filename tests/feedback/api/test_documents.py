from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from pytest_django import Settings

from feedback import ml
from feedback.models import Document, IntakeBatch
from tests.cast import AT_RISK, setup_cast, setup_document, setup_release
from tests.feedback.api.client import Program

DOWN = "http://127.0.0.1:9"


@pytest.fixture
def ada(db: None) -> Program:
    return Program(setup_cast().ada)


@pytest.fixture
def serving(inference: object, db: None) -> str:
    status = ml.inference_status()
    assert status is not None
    return setup_release(name=status.release).name


class TestAdding:
    def test_takes_one_text(self, ada: Program) -> None:
        answer = ada.post("documents", {"text": "one", "id": "x1"})
        document = Document.objects.get()
        assert answer.status == 201
        assert answer.body["documents"] == [{"row": 1, "id": document.pk, "is_new": True}]
        assert (document.external_id, document.state) == ("x1", Document.State.UNSCORED)

    def test_takes_many_and_names_the_bad_ones(self, ada: Program) -> None:
        known = setup_document(text="known")
        answer = ada.post("documents", {"documents": [{"text": "new"}, {"text": ""}, {"text": "Known."}]})
        assert (answer.body["accepted"], answer.body["known"], answer.body["refused"]) == (1, 1, 1)
        assert answer.body["problems"] == [{"row": 2, "field": "text", "reason": "the text is empty"}]
        assert answer.body["documents"][1] == {"row": 3, "id": known.pk, "is_new": False}

    def test_nothing_good_is_an_error_with_rows(self, ada: Program) -> None:
        answer = ada.post("documents", {"text": "a" * 10_000_000})
        assert (answer.status, answer.body["error"]) == (400, "invalid_input")
        assert answer.body["rows"][0]["reason"].startswith("10000000 characters")
        assert not IntakeBatch.objects.exclude(kind="demo").exists()

    @pytest.mark.parametrize(
        "body", [{}, [], "text", {"documents": []}, {"documents": {}}, {"documents": [{"text": "a"}] * 1001}]
    )
    def test_rejects_a_body_of_another_shape(self, ada: Program, body: Any) -> None:
        answer = ada.post("documents", body)
        assert (answer.status, answer.body["error"]) == (400, "invalid_input")

    @pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"text": NaN}'])
    def test_rejects_broken_json(self, ada: Program, body: bytes) -> None:
        answer = ada.send("POST", "documents", data=body, content_type="application/json")
        assert (answer.status, answer.body["error"]) == (400, "parse_error")

    def test_rejects_a_body_that_is_too_large(self, ada: Program, settings: Settings) -> None:
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
        answer = ada.post("documents", {"text": "a" * 200})
        assert (answer.status, answer.body["error"]) == (413, "body_too_large")

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/x-ndjson", b'{"text": "one"}\n{broken\n{"text": "two"}'),
            ("text/csv", b"text\none\n\x00\ntwo\n"),
        ],
    )
    def test_takes_lines_and_tables(self, ada: Program, content_type: str, body: bytes) -> None:
        answer = ada.send("POST", "documents", data=body, content_type=content_type)
        assert (answer.status, answer.body["accepted"], answer.body["refused"]) == (201, 2, 1)

    def test_takes_an_uploaded_file(self, ada: Program) -> None:
        upload = SimpleUploadedFile("texts.csv", b"id;text\n1;one\n2;two\n")
        response = ada.client.post(
            "/api/v1/documents", {"file": upload}, headers={"authorization": f"Bearer {ada.token}"}
        )
        assert (response.status_code, response.json()["kind"], response.json()["name"]) == (201, "csv", "texts.csv")

    def test_waiting_answers_with_the_prediction(self, ada: Program, serving: str) -> None:
        answer = ada.send(
            "POST",
            "documents",
            data=json.dumps({"documents": [{"text": "one"}, {"text": "two"}]}),
            content_type="application/json",
            query_params={"wait": "1"},
        )
        assert answer.status == 201
        assert [row["document"]["prediction"]["release"] for row in answer.body["documents"]] == [serving] * 2

    def test_waiting_for_a_server_that_is_down_keeps_the_texts_and_says_so(
        self, ada: Program, settings: Settings
    ) -> None:
        settings.INFERENCE_URL = DOWN
        body = json.dumps({"text": "one"})
        answer = ada.send("POST", "documents", data=body, content_type="application/json", query_params={"wait": "1"})
        assert (answer.status, answer.body["error"]) == (503, "inference_unavailable")
        assert "the texts were accepted" in answer.body["detail"]
        assert answer.body["batch"]["documents"][0]["id"] == Document.objects.get(state="unscored").pk


class TestReading:
    def test_gives_the_prediction(self, ada: Program) -> None:
        document = setup_document(labels={"risk": "low"})
        answer = ada.get(f"documents/{document.pk}")
        assert answer.body["prediction"]["labels"]["risk"] == "low"
        assert answer.body["text"] == document.text

    @pytest.mark.parametrize("pk", [0, 10**30])
    def test_unknown_one_is_not_found(self, ada: Program, pk: int) -> None:
        answer = ada.get(f"documents/{pk}")
        assert (answer.status, answer.body["error"]) == (404, "not_found")

    @pytest.mark.parametrize(
        ("filters", "texts"),
        [
            ({"risk": "high"}, ["at risk 100%"]),
            ({"emotion": "neutral"}, ["calm"]),
            ({"state": "unscored"}, ["waiting"]),
            ({"q": "RISK 1"}, ["at risk 100%"]),
            ({"q": "0%"}, ["at risk 100%"]),
            ({"q": "c_lm"}, []),
            ({"state": "scored", "risk": "none"}, ["calm"]),
            ({}, ["waiting", "at risk 100%", "calm"]),
        ],
    )
    def test_filters(self, ada: Program, filters: dict[str, str], texts: list[str]) -> None:
        setup_document(text="calm")
        setup_document(text="at risk 100%", labels=AT_RISK)
        setup_document(text="waiting", state="unscored")
        assert [row["text"] for row in ada.get("documents", **filters).body["results"]] == texts

    @pytest.mark.parametrize("filters", [{"risk": "extreme"}, {"state": "lost"}, {"q": "\x00"}, {"emotion": "\x00"}])
    def test_rejects_a_filter_that_nothing_can_match(self, ada: Program, filters: dict[str, str]) -> None:
        assert ada.get("documents", **filters).status == 400

    def test_pages_through_everything_once(self, ada: Program) -> None:
        documents = [setup_document() for _ in range(5)]
        page = ada.get("documents", page_size="2").body
        seen = [row["id"] for row in page["results"]]
        while page["next"]:
            params = {name: value for name, [value] in parse_qs(urlsplit(page["next"]).query).items()}
            page = ada.get("documents", **params).body
            seen += [row["id"] for row in page["results"]]
        assert seen == [document.pk for document in reversed(documents)]

    def test_queries_do_not_grow_with_rows(
        self, ada: Program, django_assert_num_queries: Any, django_assert_max_num_queries: Any
    ) -> None:
        setup_document()
        with django_assert_max_num_queries(10) as few:
            ada.get("documents")
        for _ in range(10):
            setup_document()
        with django_assert_num_queries(len(few)):
            assert len(ada.get("documents").body["results"]) == 11


class TestClassifying:
    def test_decides_and_stores_nothing(self, ada: Program, serving: str) -> None:
        answer = ada.post("classify", {"texts": ["one", "two"]})
        assert [row["release"] for row in answer.body["decisions"]] == [serving] * 2
        assert set(answer.body["decisions"][0]["labels"]) == {"emotion", "sentiment", "stress", "risk"}
        assert not Document.objects.exists()

    def test_says_when_the_server_is_down(self, ada: Program, settings: Settings) -> None:
        settings.INFERENCE_URL = DOWN
        answer = ada.post("classify", {"text": "one"})
        assert (answer.status, answer.body["error"]) == (503, "inference_unavailable")

    def test_names_the_texts_that_cannot_be_classified(self, ada: Program) -> None:
        answer = ada.post("classify", {"texts": ["one", 2, ""]})
        assert [row["row"] for row in answer.body["rows"]] == [2, 3]

    @pytest.mark.parametrize("body", [{}, [], {"texts": []}, {"texts": "one"}, {"texts": ["a"] * 1001}])
    def test_rejects_a_body_of_another_shape(self, ada: Program, body: Any) -> None:
        assert ada.post("classify", body).status == 400
