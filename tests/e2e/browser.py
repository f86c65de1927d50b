"""Chromium, as the machine has it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


class NoBrowser(Exception):
    """Neither a Chromium of the system nor one of Playwright's is here; the message says how to get one."""


def find_chromium(playwright: Playwright) -> str:
    """Raises NoBrowser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    own = playwright.chromium.executable_path
    if Path(own).exists():
        return own
    raise NoBrowser("no Chromium: `apt-get install chromium`, or `python -m playwright install chromium`")


@contextmanager
def open_browser() -> Iterator[Browser]:
    # Playwright's loop runs in this thread, beside Django's synchronous database calls.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def log_in(context: BrowserContext, url: str, username: str) -> None:
    """A session cookie for the person, as `Client.force_login` makes it."""
    from django.conf import settings
    from django.test import Client

    from feedback.models import Person

    client = Client()
    client.force_login(Person.objects.get(username=username))
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": url}])
