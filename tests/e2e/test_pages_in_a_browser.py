from __future__ import annotations

import gzip
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.cast import Cast
from tests.e2e.conftest import OpenPage
from tests.e2e.content import setup_content, setup_runs

pytestmark = pytest.mark.e2e

ADMIN_PAGES = (
    "/annotate/", "/annotate/mine/", "/cases/", "/documents/", "/documents/1/", "/intake/", "/feedback/", "/training/",
    "/training/snapshots/new/",
    "/releases/", "/people/", "/api-keys/", "/guidelines/", "/about/",
)  # fmt: skip


def background(page: Page) -> Any:
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def test_theme_follows_the_system_until_somebody_chooses(open_page: OpenPage) -> None:
    page = open_page("ana", "/about/", color_scheme="dark")
    dark = background(page)
    page.locator("[data-does='switch-theme']").click()
    light = background(page)
    assert light != dark
    page.reload()
    assert background(page) == light


def test_rail_stays_folded_after_a_reload(open_page: OpenPage) -> None:
    page = open_page("ana", "/about/")
    page.locator(".fold").click()
    page.reload()
    width = page.locator(".rail").bounding_box()
    assert width is not None
    assert width["width"] < 100


@pytest.mark.parametrize("width", [390, 640, 1280])
def test_no_page_is_wider_than_the_screen(open_page: OpenPage, cast: Cast, width: int) -> None:
    """640 is a 1280 px screen at 200 % zoom."""
    first = setup_content(cast)[0]
    runs = setup_runs(cast)
    run = runs[0]
    page = open_page("ada", "/about/", viewport={"width": width, "height": 844})
    origin = page.url.removesuffix("/about/")
    paths = [path.replace("/1/", f"/{first.pk}/") for path in ADMIN_PAGES] + [f"/training/{run.pk}/"]
    paths += [f"/training/new/bert/?clone={run.pk}", f"/training/compare/?run={run.pk}&run={runs[2].pk}", "/notices/"]
    too_wide = []
    for path in paths:
        page.goto(origin + path)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            too_wide.append(path)
    assert too_wide == []


def test_more_opens_the_other_pages_on_a_phone(open_page: OpenPage) -> None:
    page = open_page("ada", "/about/", viewport={"width": 390, "height": 844})
    expect(page.get_by_role("link", name="People")).to_be_hidden()
    page.get_by_role("button", name="More").click()
    page.get_by_role("link", name="People").click()
    expect(page.get_by_role("heading", name="People", exact=True)).to_be_visible()


def test_controls_of_the_card_are_big_enough_for_a_finger(open_page: OpenPage, cast: Cast) -> None:
    setup_content(cast)
    page = open_page("ana", "/annotate/", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for control in page.locator(".chip, .verdicts button:visible").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 48


def test_run_page_fills_in_and_stops_asking_when_the_run_ends(open_page: OpenPage, cast: Cast) -> None:
    setup_content(cast)
    run = setup_runs(cast)[0]
    page = open_page("ada", f"/training/{run.pk}/")
    expect(page.locator("#run")).to_contain_text("42 %")
    run.progress = 0.77
    run.save(update_fields=["progress"])
    expect(page.locator("#run")).to_contain_text("77 %")
    run.state = "cancelled"
    run.save(update_fields=["state"])
    expect(page.locator("#run")).to_contain_text("Cancelled")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4_500)
    assert asked == []


def test_wizard_estimates_while_one_types_and_clones_a_run(open_page: OpenPage, cast: Cast) -> None:
    setup_content(cast)
    original = setup_runs(cast)[1]
    page = open_page("ada", f"/training/{original.pk}/")
    page.get_by_role("link", name="Clone").click()
    page.wait_for_url("**/training/new/bert/?clone=*")
    expect(page.get_by_text("A copy of")).to_be_visible()
    before = page.locator("#forecast").inner_text()
    page.get_by_label("Epochs").fill("90")
    page.get_by_label("Batch size").focus()  # leaving the field is the change
    expect(page.locator("#forecast")).not_to_have_text(before)
    page.get_by_label("Epochs").fill("2")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/training/*/")
    # A reload, and anybody else's browser, shows the same.
    shown = page.locator("#run .progress-line").inner_text()
    page.reload()
    assert page.locator("#run .progress-line").inner_text() == shown
    expect(page.get_by_text("copy of")).to_be_attached()


def test_filter_narrows_the_list_and_the_search_stays_out_of_the_address(open_page: OpenPage, cast: Cast) -> None:
    setup_content(cast)
    page = open_page("ada", "/documents/")
    page.locator("[name=risk][value=high]").check(force=True)
    expect(page.locator("tr[data-row]")).to_have_count(1)
    assert page.url.endswith("/documents/?risk=high")
    page.locator("[name=risk][value='']").check(force=True)
    page.keyboard.press("/")
    page.keyboard.type("divorce")
    expect(page.locator("tr[data-row]")).to_have_count(1)
    assert "divorce" not in page.url


def test_first_paint_of_the_card_is_light(open_page: OpenPage, cast: Cast) -> None:
    """As gzip leaves it, which WhiteNoise and any proxy apply."""
    setup_content(cast)
    page = open_page("ana", "/about/")
    bodies: list[bytes] = []
    page.on("response", lambda response: bodies.append(response.body()))
    page.goto(page.url.replace("/about/", "/annotate/"))
    page.wait_for_load_state("networkidle")
    assert len(bodies) > 5
    assert sum(len(gzip.compress(body)) for body in bodies) < 100 * 1024
