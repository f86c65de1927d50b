"""Pictures of every page, with content, in light and dark, at desk and phone width.

python -m tests.e2e.shots OUTDIR [PAGE ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import conftest

SIZES = {"desk": (1280, 860), "phone": (390, 844)}
THEMES = ("light", "dark")


def main(folder: Path, only: set[str]) -> None:
    import django

    django.setup()
    from django.db import connection
    from django.test.utils import override_settings

    # Not dropped afterwards: a browser's open connection would forbid it; the next time finds it and makes it anew.
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    with override_settings(ALLOWED_HOSTS=["*"]):
        take_all(folder, only)


def take_all(folder: Path, only: set[str]) -> None:
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.test.testcases import LiveServerThread

    from feedback.services import notices
    from tests.cast import setup_cast
    from tests.e2e.browser import open_browser
    from tests.e2e.content import setup_content, setup_runs

    cast = setup_cast()
    documents = setup_content(cast)
    runs = setup_runs(cast)
    notices.tell_ended_runs()
    server = LiveServerThread("127.0.0.1", StaticFilesHandler)
    server.daemon = True
    server.start()
    server.is_ready.wait()
    url = f"http://127.0.0.1:{server.port}"
    try:
        with open_browser() as browser:
            for page in list_pages(documents[0].pk, [run.pk for run in runs], cast.ada):
                if not only or page[0] in only:
                    take_page(browser, url, folder, *page)
    finally:
        server.terminate()


def list_pages(document: int, runs: list[int], ada: object) -> list[tuple[str, str, str, str]]:
    """Name, person, path, and what to press there first."""
    from feedback.services.people import invite

    _, token = invite(role="annotator", by=ada, note="for the pictures")  # type: ignore[arg-type]
    return [
        ("login", "", "/accounts/login/", ""),
        ("invitation", "", f"/invitations/{token}/", ""),
        ("no_role", "otto", "/", ""),
        ("annotate", "ana", "/annotate/", ""),
        ("annotate_correct", "ana", "/annotate/", "x 2"),
        ("annotate_keys", "ana", "/annotate/", "?"),
        ("annotate_guidelines", "ana", "/annotate/", "g"),
        ("annotate_refused", "ana", "/annotate/", "x Enter"),
        ("my_answers", "bo", "/annotate/mine/", ""),
        ("cases", "mo", "/cases/", ""),
        ("case_covered", "mo", "/cases/", "Enter"),
        ("case_shown", "mo", "/cases/", "Enter s"),
        ("documents", "ada", "/documents/", ""),
        ("documents_none", "ada", "/documents/?risk=high&emotion=positive", ""),
        ("document", "ada", f"/documents/{document}/", ""),
        ("intake", "ada", "/intake/", ""),
        ("batch", "ada", "/intake/1/", ""),
        ("feedback", "ada", "/feedback/", ""),
        ("training", "ada", "/training/", ""),
        ("launch", "ada", "/training/new/bert/", ""),
        ("launch_lacks", "ada", "/training/new/kto/", ""),
        ("clone", "ada", f"/training/new/bert/?clone={runs[1]}", ""),
        ("compare_runs", "ada", "/training/compare/?" + "&".join(f"run={pk}" for pk in runs), ""),
        ("notices", "ada", "/notices/", ""),
        ("run", "ada", f"/training/{runs[0]}/", ""),
        ("run_failed", "ada", f"/training/{runs[1]}/", ""),
        ("run_done", "ada", f"/training/{runs[2]}/", ""),
        ("releases", "ada", "/releases/", ""),
        ("roll_back", "ada", "/releases/1/roll-back/", ""),
        ("ablation", "ada", "/releases/2/ablation/", ""),
        ("ablation_none", "ada", "/releases/1/ablation/", ""),
        ("rules", "ada", "/rules/", ""),
        ("people", "ada", "/people/", ""),
        ("api_keys", "ada", "/api-keys/", ""),
        ("guidelines", "ana", "/guidelines/", ""),
        ("about", "ana", "/about/", ""),
        ("password", "ana", "/accounts/password/change/", ""),
        ("missing", "ana", "/nowhere/", ""),
        ("annotate_history", "ana", "/annotate/", "a r 2 Enter"),
    ]


def take_page(browser: object, url: str, folder: Path, name: str, person: str, path: str, keys: str) -> None:
    from tests.e2e.browser import log_in

    for size, (width, height) in SIZES.items():
        for theme in THEMES:
            context = browser.new_context(  # type: ignore[attr-defined]
                viewport={"width": width, "height": height}, color_scheme=theme, has_touch=size == "phone"
            )
            if person:
                log_in(context, url, person)
            page = context.new_page()
            page.on("console", lambda message: print(name, message.type, message.text))
            page.on("pageerror", lambda error: print(name, "error", error))
            page.goto(url + path)
            for key in keys.split():
                page.keyboard.press(key)
                page.wait_for_timeout(400)
            page.wait_for_load_state("networkidle")
            is_long = size == "desk" and not keys
            page.screenshot(path=folder / f"{name}-{size}-{theme}.png", full_page=is_long)
            context.close()
    print("took", name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    try:
        main(target, set(sys.argv[2:]))
    finally:
        conftest.pytest_unconfigure(None)  # type: ignore[arg-type]
