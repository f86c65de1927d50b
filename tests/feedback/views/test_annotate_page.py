from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client

from feedback.models import Annotation, Assignment, Document
from tests.cast import Cast, setup_annotation, setup_document

HTMX = {"HX-Request": "true"}


def answer(document: Document, **fields: Any) -> dict[str, Any]:
    prediction = document.prediction
    assert prediction is not None
    chips = dict(prediction.labels)
    values = {"document": document.pk, "prediction": prediction.pk, "verdict": "correct", "idempotency_key": uuid4()}
    return values | chips | fields


@pytest.fixture
def documents(cast: Cast) -> list[Document]:
    return [setup_document(text=f"text {n}", priority=10.0 - n) for n in range(3)]


def test_answer_brings_the_next_card_without_the_page_around_it(ana: Client, documents: list[Document]) -> None:
    ana.get("/annotate/")
    response = ana.post("/annotate/answers/", answer(documents[0], active_ms=1200), headers=HTMX)
    html = response.content.decode()
    assert response.status_code == 200
    assert "<nav" not in html
    assert f'data-document="{documents[1].pk}"' in html
    kept = Annotation.objects.get()
    assert (kept.verdict, kept.active_ms) == ("correct", 1200)


def test_plain_form_goes_back_to_the_page(ana: Client, documents: list[Document]) -> None:
    response = ana.post("/annotate/answers/", answer(documents[0]))
    assert (response.status_code, response["Location"]) == (302, "/annotate/")


def test_the_same_key_twice_is_one_answer(ana: Client, documents: list[Document]) -> None:
    values = answer(documents[0], idempotency_key=UUID(int=7))
    for _ in range(2):
        assert ana.post("/annotate/answers/", values, headers=HTMX).status_code == 200
    assert Annotation.objects.count() == 1


def test_card_makes_a_key_for_those_without_script(ana: Client, documents: list[Document]) -> None:
    html = ana.get("/annotate/").content.decode()
    key = html.partition('name="idempotency_key" value="')[2].partition('"')[0]
    assert UUID(key)


def test_lost_race_says_so_and_shows_the_next_card(ana: Client, cast: Cast, documents: list[Document]) -> None:
    setup_annotation(cast.bo, document=documents[0])
    response = ana.post("/annotate/answers/", answer(documents[0]), headers=HTMX)
    assert response.status_code == 409
    assert response["HX-Retarget"] == "#workbench"
    assert "Somebody else has answered this text" in response.content.decode()
    assert f'data-document="{documents[1].pk}"' in response.content.decode()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"risk": "enormous", "verdict": "corrected"}, "risk"),
        ({"verdict": "corrected"}, "answer correct"),
        ({"verdict": "perhaps"}, "verdict"),
        ({"idempotency_key": "seven"}, "idempotency_key"),
        ({"comment": "x" * 2001}, "comment"),
    ],
)
def test_refused_answer_leaves_the_card_and_names_the_field(
    ana: Client, documents: list[Document], fields: dict[str, Any], reason: str
) -> None:
    response = ana.post("/annotate/answers/", answer(documents[0], **fields), headers=HTMX)
    assert response.status_code == 400
    assert response["HX-Retarget"] == "#notice"
    assert reason in response.content.decode()
    assert not Annotation.objects.exists()


def test_undo_brings_the_text_back_with_its_labels(ana: Client, cast: Cast, documents: list[Document]) -> None:
    kept = setup_annotation(cast.ana, document=documents[2], verdict="corrected", labels={"risk": "high"})
    html = ana.post("/annotate/undo/", {"annotation": kept.pk}, headers=HTMX).content.decode()
    assert f'data-document="{documents[2].pk}"' in html
    risk = html.partition('data-row="risk"')[2]
    assert 'value="high" data-key="4" checked' in risk
    kept.refresh_from_db()
    assert kept.undone_at is not None


def test_undo_without_an_answer_is_no_error(ana: Client, documents: list[Document]) -> None:
    response = ana.post("/annotate/undo/", headers=HTMX)
    assert response.status_code == 200
    assert b"There is no answer to undo." in response.content


def test_nobody_undoes_what_another_said(ana: Client, cast: Cast) -> None:
    kept = setup_annotation(cast.bo)
    assert ana.post("/annotate/undo/", {"annotation": kept.pk}).status_code == 404
    kept.refresh_from_db()
    assert kept.undone_at is None


def test_page_that_is_left_puts_its_texts_back(ana: Client, documents: list[Document]) -> None:
    page = ana.get("/annotate/")
    assert Assignment.objects.count() == 3
    ana.post("/annotate/claims/release/", {"page_mark": page.context["page_mark"]})
    assert Assignment.objects.count() == 0


def test_page_that_was_opened_anew_keeps_its_texts(ana: Client, documents: list[Document]) -> None:
    old = ana.get("/annotate/")
    ana.get("/annotate/")
    ana.post("/annotate/claims/release/", {"page_mark": old.context["page_mark"]})
    assert Assignment.objects.count() == 3


def test_evidence_is_marked_and_the_text_escaped(ana: Client, cast: Cast) -> None:
    text = "<b>never</b> & again"
    evidence = [{"rule": "bold", "kind": "block", "start": 3, "end": 8, "scope": "plain"}]
    setup_document(text=text, evidence=evidence)
    html = ana.get("/annotate/").content.decode()
    assert '&lt;b&gt;<mark class="mark-block" title="block bold (plain)">never</mark>&lt;/b&gt; &amp; again' in html


def test_overlapping_evidence_becomes_one_mark(ana: Client, cast: Cast) -> None:
    spans = [(0, 6, "hint"), (4, 9, "block")]
    evidence = [{"rule": f"r{a}", "kind": kind, "start": a, "end": b, "scope": "plain"} for a, b, kind in spans]
    setup_document(text="abcdefghij", evidence=evidence)
    assert ">abcdefghi</mark>j" in ana.get("/annotate/").content.decode()


def test_empty_page_says_why(ana: Client, cast: Cast) -> None:
    assert b"There are no texts yet" in ana.get("/annotate/").content
    waiting = setup_document(state=Document.State.UNSCORED)
    assert b"The classifier is not done yet" in ana.get("/annotate/").content
    waiting.delete()
    setup_annotation(cast.bo)
    assert b"All texts are answered" in ana.get("/annotate/").content
    held = setup_document()
    setup_annotation(cast.ana, document=held, verdict="skip")
    assert b"Nothing is free for you now" in ana.get("/annotate/").content


def test_flag_keeps_the_card(ana: Client, documents: list[Document]) -> None:
    response = ana.post("/annotate/flags/", {"document": documents[0].pk, "comment": "odd"}, headers=HTMX)
    assert b"Flagged to the moderators" in response.content
    assert documents[0].case.note == "odd"


def test_moderators_do_not_annotate(mo: Client, documents: list[Document]) -> None:
    assert mo.get("/annotate/").status_code == 403
    assert mo.post("/annotate/answers/", answer(documents[0])).status_code == 403


def test_anonymous_goes_to_the_login_page(client: Client, db: None) -> None:
    assert client.get("/annotate/")["Location"] == "/accounts/login/?next=/annotate/"
