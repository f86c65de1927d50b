"""Background jobs. Public functions decide and enqueue; the tasks take ids, read the rows again, and may run twice."""

import logging
from collections.abc import Sequence
from functools import partial

from celery import shared_task
from django.core.cache import cache
from django.db import transaction
from kombu.exceptions import OperationalError

from feedback.ml import InferenceUnavailable
from feedback.models import Document
from feedback.services import annotation, moderation, notices, scoring

logger = logging.getLogger(__name__)

IDS_PER_TASK = 200
WAITING_AT_ONCE = 1_000
WAITING_LOCK_S = 120


def score_on_commit(ids: Sequence[int]) -> None:
    """Score these documents soon after the transaction commits."""
    if ids:
        transaction.on_commit(partial(_enqueue_scoring, list(ids)))


def _enqueue_scoring(ids: list[int]) -> None:
    try:
        for start in range(0, len(ids), IDS_PER_TASK):
            score_documents_task.delay(ids[start : start + IDS_PER_TASK])
    except OperationalError:
        # The rows are the queue: the beat's score_waiting_task finds them when the broker is back.
        logger.warning("the broker does not answer; %d documents wait to be scored", len(ids))


@shared_task
def score_documents_task(ids: list[int]) -> None:
    unscored = Document.objects.filter(pk__in=ids, state=Document.State.UNSCORED)
    _score(list(unscored.order_by("pk").values_list("pk", flat=True)))


@shared_task
def score_waiting_task() -> None:
    """Whatever no other task scored: the inference server or the broker was down, or a worker died."""
    if not cache.add("score-waiting", 1, timeout=WAITING_LOCK_S):
        return
    try:
        unscored = Document.objects.filter(state=Document.State.UNSCORED)
        _score(list(unscored.order_by("pk").values_list("pk", flat=True)[:WAITING_AT_ONCE]))
    finally:
        cache.delete("score-waiting")


def _score(ids: list[int]) -> None:
    try:
        scoring.score_documents(ids)
    except InferenceUnavailable as error:
        logger.warning("documents wait to be scored: %s", error)


def try_rules_on_commit(tryout_id: int) -> None:
    """Run this try-out soon after the transaction commits."""
    transaction.on_commit(partial(_enqueue_tryout, tryout_id))


def _enqueue_tryout(tryout_id: int) -> None:
    try:
        try_rules_task.delay(tryout_id)
    except OperationalError:
        # No row waits for ever: a try-out that nobody takes counts as lost after a while, and may be started again.
        logger.warning("the broker does not answer; try-out %d waits", tryout_id)


@shared_task
def try_rules_task(tryout_id: int) -> None:
    # Here and not above: the service enqueues what runs here.
    from feedback.services import rule_tryouts

    rule_tryouts.run_tryout(tryout_id)


@shared_task
def settle_rule_drafts_task() -> None:
    from feedback.services import rule_drafts

    rule_drafts.settle_drafts()


@shared_task
def tell_ended_runs_task() -> None:
    notices.tell_ended_runs()


@shared_task
def tick_cases_task() -> None:
    moderation.tick()
    annotation.drop_expired_claims()
