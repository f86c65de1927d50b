"""Celery tasks. Each may be delivered twice, late or never: rows say what is to be done, messages say when to look."""

import logging
from datetime import timedelta
from typing import Any

from celery import shared_task
from celery.signals import worker_ready
from django.conf import settings
from django.core.cache import cache
from django.db.models import Q
from django.utils import timezone

from classifier.client import InferenceClient, InferenceUnavailable, SwapRefused
from classifier.errors import ReleaseConflict
from training import preflight, registry, supervisor
from training.models import Release, TrainingRun, serving_release
from training.queue import enqueue_run

logger = logging.getLogger(__name__)

LONG_QUEUED = timedelta(seconds=30)
RESEND_S = 120
"""A run behind a long one stays queued for hours; its message is sent again only so often."""
REFUSED_S = 600
"""A bundle that the inference server has refused is offered again only so often: loading it is work."""


@shared_task
def run_training_task(run_id: int) -> None:
    supervisor.supervise(run_id)


@worker_ready.connect
def report_ready_worker(sender: Any, **_: object) -> None:
    """A worker that takes training runs says at its start what it has; one of another queue is not asked."""
    if "training" in sender.app.amqp.queues.consume_from:
        preflight.report_machine()


@shared_task
def report_machine_task() -> None:
    """Sent to the queue `training`: base models and disk space change while a worker lives."""
    preflight.report_machine()


@shared_task
def requeue_lost_runs_task() -> None:
    """Send the message again for runs whose message or worker was lost."""
    now = timezone.now()
    queued = Q(state=TrainingRun.State.QUEUED, created_at__lt=now - LONG_QUEUED)
    abandoned = Q(state=TrainingRun.State.RUNNING, lease_expires_at__lt=now)
    for run in TrainingRun.objects.filter(queued | abandoned).order_by("id"):
        if cache.add(f"run-resent-{run.pk}", 1, timeout=RESEND_S):
            logger.info("run %s: %s without a worker, sent again", run.pk, run.state)
            enqueue_run(run.pk)


@shared_task
def converge_inference_task() -> None:
    """Bring pointer and inference server to the newest release. Safe at any time and in any number."""
    registry.write_pointer()
    release = serving_release()
    if release is None:
        return
    client = InferenceClient(settings.INFERENCE_URL, settings.INFERENCE_TOKEN, settings.INFERENCE_TIMEOUT_S)
    try:
        converge(client, release)
    except InferenceUnavailable as error:
        logger.warning("release %s waits: %s", release.name, error)
    finally:
        client.close()


def converge(client: InferenceClient, release: Release) -> None:
    """Raises InferenceUnavailable."""
    state = client.release()
    refused = f"release-refused-{release.pk}"
    if state.release != release.name and not cache.get(refused):
        try:
            bundle = str(registry.bundle_path(release))
            state = client.swap(release=release.name, bundle=bundle, expected=state.release)
        except ReleaseConflict:
            # Somebody else moved it meanwhile, perhaps to where we want it; the next round looks again.
            return
        except SwapRefused as error:
            logger.error("the inference server refuses release %s: %s", release.name, error)
            Release.objects.filter(pk=release.pk).update(report={**release.report, "refused": str(error)})
            cache.set(refused, 1, timeout=REFUSED_S)
            return
    if state.release == release.name:
        Release.objects.filter(pk=release.pk, served_at=None).update(served_at=timezone.now())
