from __future__ import annotations

import re

import pytest
from django.test import Client

from feedback import keys
from feedback.keys import Key, Scope
from feedback.services.moderation import claim_next, reveal
from tests.cast import Cast, setup_case, setup_document


@pytest.mark.parametrize("page", [*keys.PAGES, "about"])
def test_no_key_means_two_things_on_a_page(page: str) -> None:
    assert keys.find_conflicts(keys.scopes_of(page)) == []


def test_conflicts_are_found() -> None:
    scope = Scope("one", "One", (Key("agree", "a", "agree"), Key("again", "a", "again")))
    assert keys.find_conflicts([scope]) == ["a"]


def test_every_action_is_named_once() -> None:
    for page in keys.PAGES:
        actions = [key.action for scope in keys.scopes_of(page) for key in scope.keys]
        assert len(actions) == len(set(actions)), page


def test_a_printed_key_without_a_binding_is_refused() -> None:
    with pytest.raises(KeyError, match="no key for 'agree'"):
        keys.find_key("about", "agree")


def bound(html: str) -> set[str]:
    return set(re.findall(r'data-key="([^"]+)"', html))


HANDLED_BY_SCRIPT = {"Tab", "Escape", "j", "k"}
"""The browser's own, and the two that move through rows."""


def test_annotate_page_binds_every_key_of_its_registry(ana: Client) -> None:
    setup_document()
    html = ana.get("/annotate/").content.decode()
    registered = {key.key for scope in keys.scopes_of("annotate") for key in scope.keys}
    assert bound(html) == registered - HANDLED_BY_SCRIPT


def test_case_page_binds_every_key_of_its_registry(mo: Client, cast: Cast) -> None:
    case = setup_case()
    claimed = claim_next(cast.mo)
    assert claimed is not None
    assert claimed.claim_token is not None
    covered = mo.get(f"/cases/{case.pk}/").content.decode()
    shown = mo.post(f"/cases/{case.pk}/text/", {"token": claimed.claim_token}).content.decode()
    registered = {key.key for scope in keys.scopes_of("case") for key in scope.keys}
    assert bound(covered) | bound(shown) == registered - HANDLED_BY_SCRIPT
    reveal(case.pk, token=claimed.claim_token, by=cast.mo)


def test_overlay_lists_the_keys_of_the_page(ana: Client) -> None:
    html = ana.get("/annotate/").content.decode()
    for scope in keys.scopes_of("annotate"):
        for key in scope.keys:
            assert f"<dt><kbd>{key.printed}</kbd></dt><dd>{key.label}</dd>" in html or not key.is_listed
