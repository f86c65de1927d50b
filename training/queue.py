"""Sending work to the broker. A broker that is away costs a delay, never the work: beat tasks send it again."""

import logging

from celery import current_app
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

RUN_TASK = "training.tasks.run_training_task"
CONVERGE_TASK = "training.tasks.converge_inference_task"


def enqueue_run(run_id: int) -> None:
    _send(RUN_TASK, run_id)


def enqueue_converge() -> None:
    _send(CONVERGE_TASK)


def _send(task: str, *args: int) -> None:
    try:
        # By name: a task imports the supervisor, which imports the registry, which sends.
        current_app.send_task(task, args=args, retry=False)
    except OperationalError as error:
        logger.warning("the broker does not take %s (%s); a beat task sends it again", task, error)
