"""The pages on which admins change rules."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from feedback.models import RuleChange, RuleDraft, RuleTryout
from feedback.services import rule_drafts
from feedback.services.rule_tryouts import run_tryout
from tests.cast import Cast, setup_annotation, setup_document, setup_release
from tests.rules_release import setup_rules_release
from training.models import TrainingRun

RULE = {
    "version": "1",
    "file": "own.toml",
    "id": "own.one",
    "kind": "block",
    "literals": "ownword\r\nanother one",
    "expressions": "\\bown \\d+\\b",
    "floor": "medium",
    "emotion": "self_harm_low",
    "ignores": ["past"],
    "examples": "an ownword",
    "counterexamples": "no word",
}


@pytest.fixture
def draft(cast: Cast) -> RuleDraft:
    setup_rules_release()
    return rule_drafts.open_draft(note="more words", by=cast.ada)


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, response.status_code
    return unescape(response.content.decode())


def test_list_shows_every_rule_with_what_people_say_of_it(ada: Client, cast: Cast) -> None:
    setup_rules_release()
    evidence = [{"rule": "h.hum", "kind": "hint", "start": 0, "end": 3, "scope": "plain"}]
    setup_annotation(cast.ana, document=setup_document(evidence=evidence))
    html = page(ada, "/rules/")
    for name in ("b.boom", "h.hum", "a.shipped", "a.new"):
        assert f"<summary>{name}</summary>" in html
    assert '33 % <span class="soft">(1 % to 84 %)</span>' in html  # Beta(1, 2): 1/3, 1-√0.975, 1-√0.025
    assert "on trial: decides nothing" in html
    assert "vouched for" in html


def test_list_without_a_release_or_bundle_says_why(ada: Client, cast: Cast) -> None:
    assert "No release serves yet" in page(ada, "/rules/")
    setup_release()
    assert "not on this machine’s disk" in page(ada, "/rules/")


def test_draft_starts_from_what_serves(ada: Client, cast: Cast) -> None:
    setup_rules_release()
    response = ada.post("/rules/", {"note": "more words"})
    made = RuleDraft.objects.get()
    assert response["Location"] == f"/rules/drafts/{made.pk}/"
    assert "Valid: every expression" in page(ada, response["Location"])


def test_new_rule_is_saved_from_the_form(ada: Client, draft: RuleDraft) -> None:
    response = ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    assert response["Location"] == f"/rules/drafts/{draft.pk}/"
    html = page(ada, response["Location"])
    assert "own.one is saved; the draft is valid." in html
    assert "<b>added</b>" in html
    assert '<span class="plus">+id = "own.one"</span>' in html


def test_form_shows_what_stands_in_the_file(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    html = page(ada, f"/rules/drafts/{draft.pk}/rules/own.one/")
    assert "\nownword\nanother one</textarea>" in html
    assert "\n\\bown \\d+\\b</textarea>" in html
    assert re.search(r'value="past"[^>]*checked', html)
    assert '<option value="medium" selected>' in html


def test_saving_the_form_as_it_is_shown_changes_nothing(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    draft.refresh_from_db()
    before = draft.files
    ada.post(f"/rules/drafts/{draft.pk}/rules/own.one/", {**RULE, "version": "2"})
    draft.refresh_from_db()
    assert (draft.files, draft.version) == (before, 3)


def test_refused_expression_is_saved_and_explained(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/", {**RULE, "expressions": "ok\na(?=b)"})
    html = page(ada, f"/rules/drafts/{draft.pk}/")
    assert "1 problem." in html
    assert "expression 2 is refused by RE2" in html
    assert "lookahead" in html
    assert "a(?=b)" in page(ada, f"/rules/drafts/{draft.pk}/rules/own.one/")


def test_odd_id_is_refused_beside_its_field(ada: Client, draft: RuleDraft) -> None:
    response = ada.post(f"/rules/drafts/{draft.pk}/rules/", {**RULE, "id": "Not An Id"})
    assert response.status_code == 400
    assert 'id="id_id_error"' in response.content.decode()
    assert "another one" in response.content.decode()


def test_conflict_keeps_what_was_typed_and_offers_to_save_again(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    response = ada.post(f"/rules/drafts/{draft.pk}/rules/", {**RULE, "id": "own.two"})
    html = unescape(response.content.decode())
    assert response.status_code == 409
    assert "changed meanwhile" in html
    assert 'value="own.two"' in html
    assert '<input type="hidden" name="version" value="2"' in html
    draft.refresh_from_db()
    assert "own.two" not in draft.files["own.toml"]


def test_file_is_edited_as_text(ada: Client, draft: RuleDraft) -> None:
    path = f"/rules/drafts/{draft.pk}/files/main.toml/"
    assert "# Rules that only tests use." in page(ada, path)
    ada.post(path, {"version": "1", "text": "[[rule]\r\n"})
    html = page(ada, path)
    assert "[[rule]\n</textarea>" in html
    assert "line 1" in html
    assert ada.post(path, {"version": "1", "text": "x = 1"}).status_code == 409


def test_unknown_rule_and_file_are_not_there(ada: Client, draft: RuleDraft) -> None:
    assert ada.get(f"/rules/drafts/{draft.pk}/rules/none/").status_code == 404
    assert ada.get(f"/rules/drafts/{draft.pk}/files/none.toml/").status_code == 404
    assert ada.get(f"/rules/drafts/{draft.pk}/changes/").status_code == 404


def test_odd_rule_in_a_file_does_not_break_the_page(ada: Client, draft: RuleDraft) -> None:
    text = '[[rule]]\nid = "a/b?"\nkind = 3\nliterals = "x"\n[[rule]]\nkind = "hint"\n'
    ada.post(f"/rules/drafts/{draft.pk}/files/own.toml/", {"version": "1", "text": text})
    html = page(ada, f"/rules/drafts/{draft.pk}/")
    assert "a/b?" in html
    assert "(without id)" in html


def test_rule_is_removed_and_shown_as_removed(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/h.hum/remove/", {"version": "1"})
    assert "<b>removed</b>" in page(ada, f"/rules/drafts/{draft.pk}/")


def test_rule_is_disabled_by_its_box(ada: Client, draft: RuleDraft) -> None:
    values = {"version": "1", "file": "main.toml", "id": "h.hum", "kind": "hint", "literals": "hintword"}
    values |= {"examples": "hintword", "disabled": "on"}
    ada.post(f"/rules/drafts/{draft.pk}/rules/h.hum/", values)
    assert "<b>disabled</b>" in page(ada, f"/rules/drafts/{draft.pk}/")


def start(client: Client, draft: RuleDraft, **overrides: Any) -> RuleTryout:
    values = {"version": "2", "documents": "100"} | overrides
    response = client.post(f"/rules/drafts/{draft.pk}/try/", values)
    assert response.status_code == 302, response.content.decode()
    return RuleTryout.objects.get()


CASE = b'{"id": "c-1", "functionality": "F00", "text": "ownword", "labels": {"emotion": "self_harm_low", '
CASE += b'"sentiment": "negative", "stress": "high", "risk": "medium"}, "must": "risk_min:medium"}'


@pytest.fixture
def tried(ada: Client, draft: RuleDraft) -> RuleTryout:
    """One document and one case that the draft touches."""
    ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    setup_document(text="an ownword")
    started = start(ada, draft, suite=SimpleUploadedFile("mine.jsonl", CASE))
    run_tryout(started.pk)
    return RuleTryout.objects.get()


def test_try_out_is_polled_until_it_ends(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    started = start(ada, draft)
    path = f"/rules/drafts/{draft.pk}/tryout/"
    assert 'hx-trigger="every 1s"' in page(ada, f"/rules/drafts/{draft.pk}/")
    assert ada.get(path, headers={"HX-Request": "true"}).status_code == 200
    run_tryout(started.pk)
    assert ada.get(path, headers={"HX-Request": "true"}).status_code == 286
    assert "Nothing changes on these texts." in page(ada, f"/rules/drafts/{draft.pk}/")


def test_try_out_shows_counts_first(ada: Client, draft: RuleDraft, tried: RuleTryout) -> None:
    html = page(ada, f"/rules/drafts/{draft.pk}/")
    assert "<b>2</b><span>of 2 texts touched</span>" in html
    assert "1 of 1 cases become better, 0 worse." in html
    ada.post(f"/rules/drafts/{draft.pk}/rules/own.one/remove/", {"version": "2"})
    assert "The draft has changed since" in page(ada, f"/rules/drafts/{draft.pk}/")


def test_changes_cover_hard_texts_until_they_are_asked_for(ada: Client, draft: RuleDraft, tried: RuleTryout) -> None:
    html = page(ada, f"/rules/drafts/{draft.pk}/changes/")
    assert "ownword" not in html
    assert html.count("Show the text") == 2
    assert "risk none → medium" in html
    assert "+ own.one (plain)" in html
    row = RuleChange.objects.exclude(document=None).get()
    shown = ada.post(f"/rules/changes/{row.pk}/text/", headers={"HX-Request": "true"}).content.decode()
    assert '<mark class="mark-block" title="block own.one (plain)">ownword</mark>' in shown
    assert "<nav" not in shown
    assert b"ownword" in ada.post(f"/rules/changes/{row.pk}/text/").content


def test_changes_are_filtered_by_kind(ada: Client, draft: RuleDraft, tried: RuleTryout) -> None:
    assert page(ada, f"/rules/drafts/{draft.pk}/changes/?kind=label_changed").count("Show the text") == 1
    assert "No text changes" in page(ada, f"/rules/drafts/{draft.pk}/changes/?kind=freed")


def test_broken_suite_is_refused_with_its_row(ada: Client, draft: RuleDraft) -> None:
    response = ada.post(
        f"/rules/drafts/{draft.pk}/try/",
        {"version": "1", "documents": "1", "suite": SimpleUploadedFile("mine.jsonl", b"{}\n")},
    )
    assert response.status_code == 400
    assert b"uite.jsonl:1: lacks" in response.content


def test_publishing_leads_to_the_run(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/rules/", RULE)
    response = ada.post(f"/rules/drafts/{draft.pk}/publish/", {"version": "2", "publishes": "on"})
    run = TrainingRun.objects.get()
    assert response["Location"] == f"/training/{run.pk}/"
    assert (run.kind, run.publishes) == ("rules", True)
    assert "being released" in page(ada, "/rules/")
    assert "#" + str(run.pk) in page(ada, f"/training/{run.pk}/")
    assert ada.post(f"/rules/drafts/{draft.pk}/rules/", {**RULE, "version": "2"}).status_code == 409


def test_discarded_draft_stays_readable(ada: Client, draft: RuleDraft) -> None:
    ada.post(f"/rules/drafts/{draft.pk}/discard/")
    html = page(ada, f"/rules/drafts/{draft.pk}/")
    assert "Discarded" in html
    assert "Publish these rules" not in html


def test_only_admins_edit_rules(ana: Client, mo: Client, draft: RuleDraft) -> None:
    for client in (ana, mo):
        assert client.get("/rules/").status_code == 403
        assert client.post(f"/rules/drafts/{draft.pk}/discard/").status_code == 403


def test_pages_hold_no_inline_script_style_or_doubled_id(ada: Client, draft: RuleDraft, tried: RuleTryout) -> None:
    base = f"/rules/drafts/{draft.pk}/"
    for path in (
        "/rules/",
        base,
        f"{base}rules/",
        f"{base}rules/b.boom/",
        f"{base}files/main.toml/",
        f"{base}changes/",
    ):
        html = page(ada, path)
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=\"", html), path
        assert (html.count("<h1"), html.count("<nav")) == (1, 1), path
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)), (path, sorted({name for name in ids if ids.count(name) > 1}))
        for tag in re.findall(r"<(?:input|select|textarea)\b[^>]*>", html):
            if 'type="hidden"' not in tag:
                (name,) = re.findall(r'\bid="([^"]+)"', tag)
                assert f'for="{name}"' in html, (path, tag)
