"""What holds for every page: it opens for its role, keeps texts out of title and address, needs no inline script."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from feedback.models import Person
from feedback.services.moderation import claim_next
from tests.cast import Cast, setup_annotation, setup_case, setup_document, setup_release
from tests.e2e.content import setup_content, setup_runs

TEXT = "wombats gather quietly"

PAGES = {
    "ana": ["annotate", "my-annotations", "documents", "guidelines", "api-keys", "about"],
    "mo": ["cases", "documents", "guidelines", "about"],
    "ada": ["annotate", "cases", "documents", "my-annotations", "intake", "feedback", "training", "releases", "people"],
}


def addresses(cast: Cast) -> list[tuple[str, str]]:
    """Person and address of every page with a text, a case and runs behind it."""
    runs = setup_runs(cast)
    document = setup_document(text=TEXT)
    setup_annotation(cast.ana, document=document)
    case = setup_case(text=f"{TEXT} at night")
    claim_next(cast.mo)
    one = [
        ("ana", reverse("document", args=[document.pk])),
        ("mo", reverse("case", args=[case.pk])),
        ("ada", reverse("batch", args=[document.batch_id])),
        ("ada", reverse("roll-back", args=[setup_release().pk])),
        *[("ada", reverse("run", args=[run.pk])) for run in runs],
        *[("ada", reverse("launch-run", args=[kind])) for kind in ("bert", "sft", "kto")],
        ("ada", reverse("launch-run", args=["bert"]) + f"?clone={runs[1].pk}"),
        ("ada", reverse("compare-runs") + "?" + "&".join(f"run={run.pk}" for run in runs)),
        ("ada", reverse("notices")),
        ("ada", reverse("account_change_password")),
        ("otto", "/"),
    ]
    return [(name, reverse(route)) for name, routes in PAGES.items() for route in routes] + one


def get(username: str, path: str) -> str:
    client = Client()
    client.force_login(Person.objects.get(username=username))
    response = client.get(path)
    assert response.status_code == 200, (username, path, response.status_code)
    return response.content.decode()


@pytest.fixture
def pages(cast: Cast) -> dict[tuple[str, str], str]:
    setup_content(cast)
    return {(name, path): get(name, path) for name, path in addresses(cast)}


def test_pages_keep_texts_out_of_titles_and_addresses(pages: dict[tuple[str, str], str]) -> None:
    assert any(TEXT in html for html in pages.values())
    for place, html in pages.items():
        (title,) = re.findall(r"<title>(.*?)</title>", html, flags=re.S)
        links = re.findall(r'(?:href|action|hx-get|hx-post)="([^"]*)"', html)
        assert "wombat" not in title, place
        assert not [link for link in links if "wombat" in link], place


def test_pages_hold_no_inline_script_or_style(pages: dict[tuple[str, str], str]) -> None:
    for place, html in pages.items():
        assert not re.search(r"<script(?![^>]*\bsrc=)", html), place
        assert "<style" not in html, place
        assert not re.search(r"\s(style|on[a-z]+)=\"", html), place
        assert "javascript:" not in html, place


def test_pages_ask_no_third_party(pages: dict[tuple[str, str], str]) -> None:
    for place, html in pages.items():
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', html), place


def test_pages_have_landmarks_and_one_heading(pages: dict[tuple[str, str], str]) -> None:
    for place, html in pages.items():
        assert html.count("<h1") == 1, place
        assert html.count("<main") == 1, place
        assert html.count("<nav") == 1, place


def test_every_field_has_a_label(pages: dict[tuple[str, str], str]) -> None:
    for place, html in pages.items():
        for tag in re.findall(r"<(?:input|select|textarea)\b[^>]*>", html):
            if 'type="hidden"' in tag or 'type="radio"' in tag or 'name="roles"' in tag:
                continue  # hidden, or inside its label
            (name,) = re.findall(r'\bid="([^"]+)"', tag) or [None]
            assert f'for="{name}"' in html, (place, tag)


def test_ids_are_unique(pages: dict[tuple[str, str], str]) -> None:
    for place, html in pages.items():
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)), (place, sorted({name for name in ids if ids.count(name) > 1}))


def test_policy_has_no_unsafe_source(ana: Client) -> None:
    policy = ana.get("/about/")["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe" not in policy


def test_rail_shows_the_pages_of_the_role(ana: Client, mo: Client, ada: Client) -> None:
    def rail(client: Client) -> set[str]:
        html = client.get("/about/").content.decode()
        return set(re.findall(r'<span class="word">([^<]+)</span></a>', html)) - {"Heed"}

    assert rail(ana) == {"Annotate", "Documents", "My answers", "Guidelines", "API keys", "About Heed"}
    assert rail(mo) == {"Cases", "Documents", "Guidelines", "API keys", "About Heed"}
    assert {"Annotate", "Cases", "Add texts", "Feedback", "Training", "Releases", "People"} <= rail(ada)


def test_home_leads_to_the_work_of_the_role(ana: Client, mo: Client, ada: Client, otto: Client) -> None:
    assert ana.get("/").headers["Location"] == reverse("annotate")
    assert mo.get("/").headers["Location"] == reverse("cases")
    assert ada.get("/").headers["Location"] == reverse("documents")
    assert b"Your account has no role yet" in otto.get("/").content


def test_refusals_keep_the_layout(ana: Client) -> None:
    for path, status in (("/people/", 403), ("/documents/999999/", 404), ("/nowhere/", 404)):
        response = ana.get(path)
        assert response.status_code == status
        assert b'<nav aria-label="Pages">' in response.content


def test_missing_page_opens_for_visitors_too(client: Client, db: None) -> None:
    response = client.get("/nowhere/")
    assert response.status_code == 404
    assert b"Nothing here" in response.content


def test_about_says_what_it_is_not(ana: Client) -> None:
    assert b"Heed is not a crisis service" in ana.get("/about/").content


def test_guidelines_name_every_value(ana: Client) -> None:
    from feedback.models.labels import SCHEMA

    html = ana.get("/guidelines/").content.decode()
    for dimension in SCHEMA.dimensions:
        for value in dimension.values:
            assert value.guideline.split(".")[0][:30] in html
