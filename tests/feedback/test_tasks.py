from __future__ import annotations

import logging
from contextlib import nullcontext

import pytest
from celery import current_app
from django.core.cache import cache
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from feedback import tasks
from feedback.models import Assignment, Document, RiskCase
from feedback.services.annotation import claim_documents
from feedback.services.intake import IntakeRow, add_documents
from tests.cast import setup_case, setup_cast, setup_document


def add(count: int, *, score_later: bool = True) -> None:
    add_documents((IntakeRow(row, f"text {row}") for row in range(count)), kind="api", by=None, score_later=score_later)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of each task that went to the broker."""
    ids: list[list[int]] = []
    monkeypatch.setattr(tasks.score_documents_task, "delay", ids.append)
    return ids


def test_new_documents_are_scored_after_the_commit_in_parts(
    db: None, sent: list[list[int]], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        add(450)
        assert sent == []
    assert [len(part) for part in sent] == [200, 200, 50]


def test_caller_who_scores_at_once_enqueues_nothing(
    db: None, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        add(3, score_later=False)
    assert callbacks == []


@pytest.mark.django_db(transaction=True)
def test_broker_that_is_down_loses_no_document(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = current_app.connection_for_write("redis://127.0.0.1:9/0", transport_options={"max_retries": 0})
    monkeypatch.setattr(current_app, "producer_or_acquire", lambda producer=None: nullcontext(nowhere.Producer()))
    monkeypatch.setitem(current_app.conf, "task_publish_retry", False)
    with caplog.at_level(logging.WARNING, logger="feedback.tasks"):
        add(2)
    assert "the broker does not answer; 2 documents wait" in caplog.text
    assert Document.objects.filter(state=Document.State.UNSCORED).count() == 2


def test_beat_runs_one_scoring_at_a_time(db: None, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    setup_document(state=Document.State.UNSCORED)
    cache.add("score-waiting", 1)
    tasks.score_waiting_task()
    assert caplog.records == []
    cache.delete("score-waiting")
    tasks.score_waiting_task()
    assert "documents wait to be scored" in caplog.text
    assert cache.get("score-waiting") is None


def test_tick_marks_late_cases_and_clears_expired_leases(db: None) -> None:
    cast = setup_cast()
    setup_case()
    claim_documents(cast.ana, count=1)
    past = cast.ana.date_joined.replace(year=2020)
    RiskCase.objects.update(due_at=past)
    Assignment.objects.update(expires_at=past)
    tasks.tick_cases_task()
    assert RiskCase.objects.filter(is_overdue=True).count() == 1
    assert not Assignment.objects.exists()
