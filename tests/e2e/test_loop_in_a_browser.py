"""Once round the loop in a real browser, on the real stack: label, look after, learn, and what serves afterwards."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.stack import StackProcess, start_toy_stack

pytestmark = pytest.mark.e2e

RUN_TIMEOUT_MS = 1_500_000
EVERY_LABEL = re.compile(r"emotion: \w+, sentiment: \w+, stress: \w+, risk: \w+")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    stack = start_toy_stack(tmp_path_factory.mktemp("loop"))
    yield stack
    stack.end()
    assert stack.left_over() == []


def enter(browser: Browser, stack: StackProcess, username: str) -> Page:
    """A context of its own, logged in through the form."""
    page = browser.new_context(accept_downloads=True).new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{stack.url}/accounts/login/")
    page.fill("input[name=login]", username)
    page.fill("input[name=password]", stack.passwords()[username])
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/accounts/login" not in url)
    return page


def reload_until(page: Page, selector: str) -> None:
    """A page that does not refresh itself, until scoring has filled it."""
    for _ in range(120):
        if page.locator(selector).count():
            return
        page.wait_for_timeout(500)
        page.reload()
    raise AssertionError(f"{selector} never appeared")


def test_once_round_the_loop(browser: Browser, stack: StackProcess, tmp_path: Path) -> None:
    ana = enter(browser, stack, "ana")
    ana.goto(f"{stack.url}/annotate/")
    reload_until(ana, "form.card")
    card = ana.locator("form.card")
    expect(card).to_be_focused()
    first = card.get_attribute("data-document")
    # Another value than the model's: the page takes no correction that changes nothing.
    model_says = ana.locator("input[name=stress]:checked").input_value()
    for key in ("t", "1" if model_says != "low" else "2", "Enter"):
        ana.keyboard.press(key)
    expect(card).not_to_have_attribute("data-document", first or "")
    expect(card).to_be_focused()
    ana.keyboard.press("a")
    expect(ana.locator("#done-today")).to_have_text("2 today")
    ana.keyboard.press("f")

    mo = enter(browser, stack, "mo")
    mo.goto(f"{stack.url}/cases/")
    reload_until(mo, "tbody tr")
    mo.keyboard.press("Enter")
    mo.wait_for_url("**/cases/*/")
    expect(mo.get_by_text("The text is covered")).to_be_visible()
    mo.keyboard.press("s")
    expect(mo.get_by_text("The text is covered")).to_have_count(0)
    mo.keyboard.press("c")
    expect(mo.locator("#notice")).to_contain_text("at risk, escalated")

    ada = enter(browser, stack, "ada")
    ada.goto(f"{stack.url}/feedback/")
    with ada.expect_download() as waiting:
        ada.locator("a[href$='feedback.json']").first.click()
    exported = tmp_path / "feedback.json"
    waiting.value.save_as(exported)
    assert EVERY_LABEL.search(exported.read_text(encoding="utf-8"))

    ada.goto(f"{stack.url}/training/")
    ada.get_by_role("link", name="BERT arm", exact=True).click()
    ada.fill("input[name=epochs]", "1")
    # So small a step that every gate finds the same model: the loop is tried here, not the learning.
    ada.fill("input[name=learning_rate]", "0.0000001")
    ada.get_by_role("button", name="Start the run").click()
    ada.wait_for_url(re.compile(r"/training/\d+/"))
    # The page follows the run by itself: nothing is reloaded here.
    expect(ada.get_by_text("Should it serve?")).to_be_visible(timeout=RUN_TIMEOUT_MS)
    expect(ada.get_by_text("Release r0002 was made of it")).to_be_visible()
    ada.goto(f"{stack.url}/releases/")
    expect(ada.locator("body")).to_contain_text("r0002")
    expect(ada.locator("header").first).to_contain_text("r0002")
