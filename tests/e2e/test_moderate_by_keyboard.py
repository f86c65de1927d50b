from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from feedback.models import AuditEvent, CaseDecision, RiskCase
from tests.cast import AT_RISK, Cast, setup_case
from tests.e2e.conftest import OpenPage

pytestmark = pytest.mark.e2e

TEXT = "a text that stays covered"


@pytest.fixture
def case(cast: Cast) -> RiskCase:
    return setup_case(text=TEXT)


@pytest.fixture
def page(open_page: OpenPage, case: RiskCase) -> Page:
    return open_page("mo", "/cases/")


def test_reveal_and_decide(page: Page, case: RiskCase) -> None:
    expect(page.get_by_text(TEXT)).to_have_count(0)
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/*/")
    expect(page.get_by_text("The text is covered")).to_be_visible()
    assert not AuditEvent.objects.filter(verb="reveal_case").exists()
    page.keyboard.press("s")
    expect(page.get_by_text(TEXT)).to_be_visible()
    assert AuditEvent.objects.filter(verb="reveal_case").count() == 1
    page.keyboard.press("c")
    expect(page.locator("#notice")).to_contain_text(f"Case {case.pk}: at risk, escalated")
    assert CaseDecision.objects.get().outcome == "confirmed"


def test_nothing_can_be_decided_unseen(page: Page) -> None:
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/*/")
    page.keyboard.press("c")
    page.keyboard.press("1")
    expect(page.get_by_text("The text is covered")).to_be_visible()
    assert not CaseDecision.objects.exists()


def test_not_at_risk_takes_the_note_and_one_digit(page: Page, case: RiskCase) -> None:
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/*/")
    page.keyboard.press("s")
    expect(page.get_by_text(TEXT)).to_be_visible()
    page.keyboard.press("n")
    page.keyboard.type("a song text, 1 c")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    expect(page.locator("#notice")).to_contain_text("not at risk")
    decision = CaseDecision.objects.get()
    assert (decision.outcome, decision.note) == ("not_at_risk", "a song text, 1 c")
    assert case.document.annotations.get().risk == "none"


def test_hand_back_asks_no_reason(page: Page, case: RiskCase) -> None:
    page.keyboard.press("Enter")
    page.wait_for_url("**/cases/*/")
    page.keyboard.press("b")
    page.wait_for_url("**/cases/")
    case.refresh_from_db()
    assert case.claimed_by is None


def test_queue_refreshes_by_itself(page: Page, cast: Cast) -> None:
    expect(page.locator("#queue tbody tr")).to_have_count(1)
    setup_case(labels=AT_RISK | {"risk": "medium"})
    expect(page.locator("#queue tbody tr")).to_have_count(2, timeout=15_000)
