from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from feedback.models import Annotation, Document, RiskCase
from tests.cast import Cast, setup_document
from tests.e2e.conftest import OpenPage

pytestmark = pytest.mark.e2e


@pytest.fixture
def documents(cast: Cast) -> list[Document]:
    """The first is the most urgent."""
    return [setup_document(text=f"text number {n} of this test", priority=100.0 - n) for n in range(1, 5)]


@pytest.fixture
def page(open_page: OpenPage, documents: list[Document]) -> Page:
    return open_page("ana", "/annotate/")


def expect_card(page: Page, document: Document) -> None:
    expect(page.locator("form.card")).to_have_attribute("data-document", str(document.pk))
    expect(page.locator("form.card")).to_be_focused()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def standing() -> list[Annotation]:
    return list(Annotation.objects.filter(undone_at=None).order_by("pk"))


def test_one_key_agrees_and_brings_the_next_text(page: Page, documents: list[Document]) -> None:
    expect_card(page, documents[0])
    press(page, "a")
    expect_card(page, documents[1])
    (kept,) = standing()
    assert (kept.document_id, kept.verdict) == (documents[0].pk, "correct")
    assert kept.active_ms is not None
    expect(page.locator("#done-today")).to_have_text("1 today")
    expect(page.locator("#save-state")).to_have_attribute("data-state", "saved")


@pytest.mark.parametrize(
    ("keys", "name", "value"),
    [
        (("x", "3", "Enter"), "emotion", "stress"),
        (("r", "3", "Enter"), "risk", "medium"),
        (("t", "2", "Enter"), "stress", "medium"),
    ],
)
def test_three_keys_correct_one_label(
    page: Page, documents: list[Document], keys: tuple[str, ...], name: str, value: str
) -> None:
    expect_card(page, documents[0])
    press(page, *keys)
    expect_card(page, documents[1])
    (kept,) = standing()
    assert kept.verdict == "corrected"
    assert kept.labels == documents[0].prediction.labels | {name: value}  # type: ignore[union-attr]


def test_tab_moves_to_the_next_row(page: Page, documents: list[Document]) -> None:
    press(page, "x")
    press(page, "Tab", "Tab")  # the row's own button, then its chips
    expect(page.locator("[data-row='sentiment'] input:checked")).to_be_focused()
    press(page, "3", "Enter")
    expect_card(page, documents[1])
    assert standing()[0].sentiment == "negative"


def test_escape_drops_the_correction(page: Page, documents: list[Document]) -> None:
    press(page, "x", "6", "Escape")
    expect(page.locator("[data-row='emotion'] input:checked")).to_have_value("neutral")
    press(page, "a")
    expect_card(page, documents[1])
    assert standing()[0].verdict == "correct"


def test_agreeing_is_shut_while_labels_differ(page: Page, documents: list[Document]) -> None:
    press(page, "x", "6", "a")
    expect(page.locator(".agree")).to_be_disabled()
    expect(page.locator("form.card")).to_have_attribute("data-document", str(documents[0].pk))
    assert standing() == []


def test_backspace_undoes_across_submits_and_after_a_reload(page: Page, documents: list[Document]) -> None:
    press(page, "a")
    expect_card(page, documents[1])
    press(page, "u")
    expect_card(page, documents[2])
    page.reload()
    expect_card(page, documents[2])
    press(page, "Backspace")
    expect_card(page, documents[1])
    press(page, "Backspace")
    expect_card(page, documents[0])
    assert standing() == []
    press(page, "a")
    expect_card(page, documents[1])
    assert [row.document_id for row in standing()] == [documents[0].pk]


def test_an_undone_correction_comes_back_with_its_labels(page: Page, documents: list[Document]) -> None:
    press(page, "r", "4", "Enter")
    expect_card(page, documents[1])
    press(page, "Backspace")
    expect_card(page, documents[0])
    expect(page.locator("[data-row='risk'] input:checked")).to_have_value("high")


def test_space_skips(page: Page, documents: list[Document]) -> None:
    press(page, " ")
    expect_card(page, documents[1])
    assert standing()[0].verdict == "skip"


def test_keys_rest_in_the_note(page: Page, documents: list[Document]) -> None:
    press(page, "n")
    page.keyboard.type("a x 3 u ?")
    expect(page.locator("#comment")).to_have_value("a x 3 u ?")
    expect(page.locator("form.card")).to_have_attribute("data-document", str(documents[0].pk))
    assert standing() == []
    press(page, "Escape", "a")
    expect_card(page, documents[1])
    assert standing()[0].comment == "a x 3 u ?"


def test_question_mark_shows_the_keys_and_escape_hides_them(page: Page, documents: list[Document]) -> None:
    press(page, "?")
    expect(page.locator("#keys")).to_be_visible()
    expect(page.locator("#keys")).to_contain_text("agree with all four labels")
    press(page, "a")
    press(page, "Escape")
    expect(page.locator("#keys")).to_be_hidden()
    assert standing() == []


def test_flag_takes_the_note_along(page: Page, documents: list[Document]) -> None:
    press(page, "n")
    page.keyboard.type("please look")
    press(page, "Escape", "f")
    expect(page.locator("#flag")).to_be_disabled()
    assert RiskCase.objects.get().note == "please look"


def test_every_printed_key_is_bound(page: Page) -> None:
    for control in page.locator("form.card [data-key]:has(kbd)").all():
        printed = control.locator("kbd").text_content()
        bound = control.get_attribute("data-key")
        assert printed == {" ": "space", "Enter": "↵"}.get(bound or "", bound)


def test_an_answer_without_network_waits_and_is_kept_once(page: Page, documents: list[Document]) -> None:
    page.context.set_offline(True)
    press(page, "a")
    expect(page.locator("#save-state")).to_contain_text("queued 1")
    assert standing() == []
    page.context.set_offline(False)
    expect(page.locator("#save-state")).to_contain_text("saved")
    expect_card(page, documents[1])
    assert [row.document_id for row in standing()] == [documents[0].pk]


def test_the_card_does_not_move_between_texts(page: Page, documents: list[Document]) -> None:
    before = page.locator(".agree").bounding_box()
    press(page, "a")
    expect_card(page, documents[1])
    assert page.locator(".agree").bounding_box() == before


def test_works_by_plain_forms_without_script(open_page: OpenPage, documents: list[Document]) -> None:
    plain = open_page("bo", "/annotate/", java_script_enabled=False)
    plain.locator(".agree").click()
    expect(plain.locator("form.card")).to_have_attribute("data-document", str(documents[1].pk))
    plain.locator("[data-row='risk'] input[value='low']").check(force=True)
    plain.locator(".send").click()
    expect(plain.locator("form.card")).to_have_attribute("data-document", str(documents[2].pk))
    assert [row.verdict for row in standing()] == ["correct", "corrected"]
    plain.locator(".history .undo").click()
    expect(plain.locator(".history li button")).to_have_count(1)
