"""The one door from the web side to the ML side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings

from classifier.client import InferenceClient, InferenceUnavailable
from classifier.errors import BundleError, RuleError, SchemaError
from classifier.rule_changes import Blend, Change, compare
from classifier.rules.drafts import FILE_NAME, Problem, check_texts, read_texts
from classifier.rules.engine import TRIAL, RuleSet
from classifier.rules.patterns import Rule
from classifier.rules.precision import EARNED_LOW, Precision, estimate_precision
from classifier.schema import GOLDEN_STATEMENTS, Dimension, Schema, load_schema
from classifier.types import ArmScores, Decision
from training.api import (
    BundleGone,
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
    draw_ablation,
    ensure_starter_release,
    freeze_snapshot,
    get_release,
    get_run,
    have_same_arms,
    keep_rules,
    list_ablation_tables,
    list_fingerprints,
    list_releases,
    list_runs,
    list_snapshots,
    load_rules,
    meets,
    read_blend,
    read_rule_texts,
    read_suite,
    roll_back,
    run_options,
    serving_release,
    start_run,
)

__all__ = [
    "EARNED_LOW",
    "FILE_NAME",
    "GOLDEN_STATEMENTS",
    "TRIAL",
    "ArmScores",
    "Blend",
    "BundleError",
    "BundleGone",
    "Change",
    "ConfigError",
    "DatasetSnapshot",
    "Decision",
    "Dimension",
    "FeedbackRecord",
    "InferenceStatus",
    "InferenceUnavailable",
    "ModelVersion",
    "OptionSpec",
    "Precision",
    "Problem",
    "Release",
    "ReleaseConflict",
    "RowError",
    "Rule",
    "RuleError",
    "RuleSet",
    "Schema",
    "SchemaError",
    "TrainingError",
    "TrainingRun",
    "cancel_run",
    "check_texts",
    "compare",
    "decide",
    "draw_ablation",
    "ensure_starter_release",
    "estimate_precision",
    "freeze_snapshot",
    "get_release",
    "get_run",
    "have_same_arms",
    "inference_status",
    "keep_rules",
    "list_ablation_tables",
    "list_fingerprints",
    "list_releases",
    "list_runs",
    "list_snapshots",
    "load_rules",
    "load_schema",
    "meets",
    "read_blend",
    "read_rule_texts",
    "read_suite",
    "read_texts",
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
