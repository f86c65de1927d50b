"""Telling people that a run of theirs has ended: inside Heed, and by mail where the operator has set a mail server up.

Runs end on a worker that knows nobody, or in a cancelled queue; a beat task looks for ended ones, and may run twice.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import send_mail
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from feedback import ml
from feedback.models import Notice, Person

logger = logging.getLogger(__name__)

NEWS_FOR = timedelta(days=2)
"""A run that ended before is no news: nobody is told of the years before an upgrade."""


def tell_ended_runs() -> int:
    """How many people were told."""
    told = Notice.objects.filter(run=OuterRef("pk"))
    ended = ml.list_runs().filter(finished_at__gte=timezone.now() - NEWS_FOR, state__in=ml.TrainingRun.ENDED)
    runs = ended.filter(~Exists(told))
    # Whoever is second finds the row there: nobody is told twice.
    fresh = [Notice(person=run.created_by, run=run) for run in runs.order_by("pk") if run.created_by is not None]
    made = Notice.objects.bulk_create(fresh, ignore_conflicts=True)
    mail_notices()
    return len(made)


def mail_notices() -> None:
    """A mail for each notice that has had none. One that cannot be handed over is not tried again: the notice stays."""
    if not settings.EMAIL_HOST:
        return
    fresh = Notice.objects.filter(mailed_at=None, created_at__gte=timezone.now() - NEWS_FOR).exclude(person__email="")
    for notice in fresh.select_related("person", "run").order_by("pk"):
        if Notice.objects.filter(pk=notice.pk, mailed_at=None).update(mailed_at=timezone.now()):
            _send(notice)


def _send(notice: Notice) -> None:
    link = f"\n\n{settings.PUBLIC_URL}/training/{notice.run_id}/" if settings.PUBLIC_URL else ""
    try:
        send_mail(f"Heed: {describe(notice.run)}", f"{describe(notice.run)}.{link}\n", None, [notice.person.email])
    except (SMTPException, OSError) as error:
        logger.warning("the mail of notice %d was not taken: %s", notice.pk, error)


def describe(run: ml.TrainingRun) -> str:
    """`run 12 (BERT arm) was released as r0003`: names and states alone, since it leaves the house by mail."""
    ends = {
        ml.TrainingRun.State.FAILED: "has failed",
        ml.TrainingRun.State.CANCELLED: "was cancelled",
    }
    done = f"was released as {run.metrics['release']}" if "release" in run.metrics else "is done, nothing was released"
    return f"run {run.pk} ({ml.title_of(run.kind)}) {ends.get(ml.TrainingRun.State(run.state), done)}"


def list_notices(person: Person) -> QuerySet[Notice]:
    """Newest first."""
    return Notice.objects.filter(person=person).select_related("run").order_by("-pk")


def see_notices(person: Person, *, run: ml.TrainingRun | None = None) -> int:
    """Mark as seen: all, or the one about this run. Returns how many were new."""
    new = Notice.objects.filter(person=person, seen_at=None)
    return (new if run is None else new.filter(run=run)).update(seen_at=timezone.now())
