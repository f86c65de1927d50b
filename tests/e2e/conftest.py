"""A browser for the tests that need one. Without Chromium they are skipped with the reason, or fail where
HEED_BROWSER_REQUIRED=1 says that a missing browser is a fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browser import NoBrowser, log_in, open_browser

if TYPE_CHECKING:
    from pytest_django.live_server_helper import LiveServer

    from tests.cast import Cast


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with open_browser() as opened:
            yield opened
    except NoBrowser as error:
        if os.environ.get("HEED_BROWSER_REQUIRED") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def cast(transactional_db: None) -> Cast:
    # Models cannot be imported yet when pytest reads this file.
    from tests.cast import setup_cast

    return setup_cast()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, live_server: LiveServer, cast: Cast) -> Iterator[OpenPage]:
    """`open_page("ana", "/annotate/")`: a page of that person in a context of its own. Script errors fail the test."""
    contexts = []
    errors: list[str] = []

    def open_as(username: str, path: str, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        log_in(context, live_server.url, username)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
        page.goto(live_server.url + path)
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert errors == []
