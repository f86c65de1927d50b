from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.cast import AT_RISK, Cast, setup_annotation, setup_case, setup_document

HTMX = {"HX-Request": "true"}


def listed(html: str) -> list[str]:
    return re.findall(r"data-row-link>([^<]+)</a>", html)


def test_filters_narrow_the_list(ana: Client, cast: Cast) -> None:
    setup_document(text="calm one")
    setup_document(text="hard one", labels=AT_RISK)
    assert listed(ana.get("/documents/").content.decode()) == ["hard one", "calm one"]
    assert listed(ana.get("/documents/?risk=high").content.decode()) == ["hard one"]
    assert listed(ana.get("/documents/?emotion=neutral&state=scored").content.decode()) == ["calm one"]


def test_fragment_says_which_link_leads_here_without_the_search(ana: Client, cast: Cast) -> None:
    setup_document(text="calm one")
    response = ana.post("/documents/", {"risk": "none", "q": "calm"}, headers=HTMX)
    assert listed(response.content.decode()) == ["calm one"]
    assert response["HX-Push-Url"] == "/documents/?risk=none"


def test_search_takes_signs_literally(ana: Client, cast: Cast) -> None:
    setup_document(text="half 50% done")
    setup_document(text="half 50 odd done")
    assert listed(ana.post("/documents/", {"q": "50%"}, headers=HTMX).content.decode()) == ["half 50% done"]


def test_pages_follow_a_cursor(ana: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedback.views.documents.PAGE_SIZE", 2)
    for n in range(5):
        setup_document(text=f"row {n}")
    seen, before = [], ""
    for _ in range(3):
        html = ana.post("/documents/", {"before": before}, headers=HTMX).content.decode()
        seen += listed(html)
        before = "".join(re.findall(r'name="before" value="(\d+)"', html))
    assert seen == [f"row {n}" for n in (4, 3, 2, 1, 0)]
    assert before == ""


@pytest.mark.parametrize("query", ["risk=enormous", "state=lost", "before=x"])
def test_odd_filter_is_refused_in_words(ana: Client, query: str) -> None:
    assert ana.get(f"/documents/?{query}").status_code == 400


def test_empty_list_says_why(ana: Client, ada: Client) -> None:
    assert b"There are no texts yet" in ana.get("/documents/").content
    assert b'href="/intake/"' in ada.get("/documents/").content
    assert b"No text fits these filters" in ana.get("/documents/?risk=high").content


def test_document_shows_all_that_is_known(ada: Client, cast: Cast) -> None:
    case = setup_case(text="known well")
    setup_annotation(
        cast.ana, document=case.document, verdict="corrected", labels={"risk": "medium"}, comment="a quote"
    )
    html = ada.get(f"/documents/{case.document_id}/").content.decode()
    for part in ("known well", "risk high → medium", "a quote", "Open the case", "the classifier saw risk"):
        assert part.lower() in html.lower()


def count(client: Client, path: str) -> int:
    client.get(path)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return len(queries)


@pytest.mark.parametrize(
    "path",
    ["/documents/", "/cases/", "/annotate/", "/annotate/mine/", "/people/", "/intake/", "/feedback/", "/releases/"],
)
def test_queries_do_not_grow_with_rows(ada: Client, cast: Cast, path: str) -> None:
    def add(n: int) -> None:
        for _ in range(n):
            setup_case()
            setup_annotation(cast.ada)
            setup_document(priority=-1.0)

    add(2)
    few = count(ada, path)
    add(12)
    assert count(ada, path) == few


def test_document_queries_do_not_grow_with_answers(ada: Client, cast: Cast) -> None:
    document = setup_document(answers_wanted=5)
    path = f"/documents/{document.pk}/"
    setup_annotation(cast.ana, document=document)
    few = count(ada, path)
    setup_annotation(cast.bo, document=document)
    setup_annotation(cast.ada, document=document)
    assert count(ada, path) == few
