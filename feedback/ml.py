"""The one door from the web side to the ML side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings

from classifier.client import InferenceClient, InferenceUnavailable
from classifier.errors import SchemaError
from classifier.schema import GOLDEN_STATEMENTS, Dimension, Schema, load_schema
from classifier.types import Decision
from training.api import (
    ConfigError,
    DatasetSnapshot,
    FeedbackRecord,
    ModelVersion,
    OptionSpec,
    Release,
    ReleaseConflict,
    RowError,
    TrainingError,
    TrainingRun,
    cancel_run,
    ensure_starter_release,
    freeze_snapshot,
    get_release,
    get_run,
    list_releases,
    list_runs,
    list_snapshots,
    roll_back,
    run_options,
    serving_release,
    start_run,
)

__all__ = [
    "GOLDEN_STATEMENTS",
    "ConfigError",
    "DatasetSnapshot",
    "Decision",
    "Dimension",
    "FeedbackRecord",
    "InferenceStatus",
    "InferenceUnavailable",
    "ModelVersion",
    "OptionSpec",
    "Release",
    "ReleaseConflict",
    "RowError",
    "Schema",
    "SchemaError",
    "TrainingError",
    "TrainingRun",
    "cancel_run",
    "decide",
    "ensure_starter_release",
    "freeze_snapshot",
    "get_release",
    "get_run",
    "inference_status",
    "list_releases",
    "list_runs",
    "list_snapshots",
    "load_schema",
    "roll_back",
    "run_options",
    "serving_release",
    "start_run",
]

MAX_TEXTS = 1_000
"""As many as the inference server takes in one request."""


@dataclass(frozen=True, slots=True)
class InferenceStatus:
    release: str
    state: str


@lru_cache(maxsize=4)
def _client(url: str, token: str, timeout_s: float) -> InferenceClient:
    return InferenceClient(url, token, timeout_s=timeout_s)


def inference_client() -> InferenceClient:
    """The process's connection pool to the inference server that the settings name."""
    return _client(settings.INFERENCE_URL, settings.INFERENCE_TOKEN, settings.INFERENCE_TIMEOUT_S)


def decide(texts: Sequence[str]) -> list[Decision]:
    """One decision per text, in order. Raises InferenceUnavailable: then nothing was decided."""
    decisions: list[Decision] = []
    for start in range(0, len(texts), MAX_TEXTS):
        decisions += inference_client().decide(texts[start : start + MAX_TEXTS])
    return decisions


def inference_status() -> InferenceStatus | None:
    """What the inference server serves now; None when it does not answer."""
    try:
        serving = inference_client().release()
    except InferenceUnavailable:
        return None
    return InferenceStatus(serving.release, serving.state)
