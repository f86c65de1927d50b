"""Who launched a run is told once that it has ended."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from feedback.models import Notice
from feedback.services.notices import describe, tell_ended_runs
from feedback.tasks import tell_ended_runs_task
from tests.cast import Cast, setup_cast, setup_release
from training.models import DatasetSnapshot, TrainingRun


@pytest.fixture
def cast(db: None) -> Cast:
    setup_release()
    return setup_cast()


def end_run(cast: Cast, state: str = "succeeded", **overrides: Any) -> TrainingRun:
    snapshot, _ = DatasetSnapshot.objects.get_or_create(content_hash="a" * 64, defaults={"uri": "aa", "rows": 3})
    values = {"kind": "bert", "created_by": cast.ada, "finished_at": timezone.now()} | overrides
    return TrainingRun.objects.create(snapshot=snapshot, state=state, **values)


@pytest.fixture
def ada(cast: Cast) -> Client:
    client = Client()
    client.force_login(cast.ada)
    return client


def test_tells_once_however_often_it_is_asked(cast: Cast) -> None:
    run = end_run(cast)
    assert tell_ended_runs() == 1
    tell_ended_runs_task()
    assert list(Notice.objects.values_list("person__username", "run")) == [("ada", run.pk)]


@pytest.mark.parametrize(
    "overrides",
    [
        {"state": "running", "finished_at": None},
        {"created_by": None},
        {"finished_at": timezone.now() - timedelta(days=3)},
    ],
)
def test_tells_nobody_of_what_is_no_news(cast: Cast, overrides: dict[str, Any]) -> None:
    end_run(cast, **overrides)
    assert tell_ended_runs() == 0


@pytest.mark.parametrize(
    ("state", "metrics", "words"),
    [
        ("succeeded", {"release": "r0003"}, "was released as r0003"),
        ("succeeded", {}, "is done, nothing was released"),
        ("failed", {}, "has failed"),
        ("cancelled", {}, "was cancelled"),
    ],
)
def test_says_how_it_ended(cast: Cast, state: str, metrics: dict[str, str], words: str) -> None:
    run = end_run(cast, state, metrics=metrics)
    assert describe(run) == f"run {run.pk} (BERT arm) {words}"


def test_news_stand_on_every_page_until_the_run_was_looked_at(ada: Client, cast: Cast) -> None:
    run = end_run(cast)
    tell_ended_runs()
    assert "1 new" in ada.get("/about/").content.decode()
    assert f"Run {run.pk} (BERT arm) is done" in ada.get("/notices/").content.decode()
    ada.get(f"/training/{run.pk}/")
    assert "1 new" not in ada.get("/about/").content.decode()


def test_all_news_can_be_marked_as_seen(ada: Client, cast: Cast) -> None:
    end_run(cast)
    end_run(cast, "failed")
    tell_ended_runs()
    assert ada.post("/notices/seen/")["Location"] == "/notices/"
    assert not Notice.objects.filter(seen_at=None).exists()


def test_sends_no_mail_before_a_server_is_named(cast: Cast) -> None:
    cast.ada.email = "ada@example.org"
    cast.ada.save(update_fields=["email"])
    end_run(cast)
    tell_ended_runs()
    assert mail.outbox == []


def test_mails_once_and_names_states_alone(cast: Cast, settings: Any) -> None:
    settings.EMAIL_HOST, settings.PUBLIC_URL = "mail.example.org", "https://heed.example.org"
    cast.ada.email = "ada@example.org"
    cast.ada.save(update_fields=["email"])
    run = end_run(cast, "failed", error="row 7 of the snapshot: labels", log_tail="step 1")
    tell_ended_runs()
    tell_ended_runs()
    (sent,) = mail.outbox
    assert (sent.to, sent.subject) == (["ada@example.org"], f"Heed: run {run.pk} (BERT arm) has failed")
    link = rf"https://heed\.example\.org/training/{run.pk}/"
    assert re.fullmatch(rf"run {run.pk} .* has failed\.\n\n{link}\n", str(sent.body))


def test_a_mail_that_is_refused_costs_no_notice(cast: Cast, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9  # nobody listens there
    cast.ada.email = "ada@example.org"
    cast.ada.save(update_fields=["email"])
    end_run(cast)
    assert tell_ended_runs() == 1
    assert "was not taken" in caplog.text
    assert "ada@example.org" not in caplog.text
