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
    REASONS,
    BundleGone,
    Checkpoint,
    Comparison,
    ConfigError,
    DatasetSnapshot,
    Difference,
    FeedbackRecord,
    Forecast,
    Kind,
    Lack,
    ModelVersion,
    OptionSpec,
    Preview,
    Release,
    ReleaseConflict,
    RowError,
    RunRefused,
    SnapshotOptions,
    TrainingError,
    TrainingRun,
    Wish,
    cancel_run,
    compare_runs,
    describe_run,
    diff_to_previous,
    draw_ablation,
    ensure_starter_release,
    find_snapshot,
    forecast_run,
    freeze_snapshot,
    get_release,
    get_run,
    have_same_arms,
    keep_rules,
    list_ablation_tables,
    list_bases,
    list_checkpoints,
    list_fingerprints,
    list_kinds,
    list_options,
    list_releases,
    list_runs,
    list_snapshots,
    load_rules,
    makes_release,
    meets,
    preview_snapshot,
    read_blend,
    read_row_texts,
    read_rule_texts,
    read_suite,
    roll_back,
    run_options,
    serving_release,
    start_run,
    title_of,
    work_here,
)

__all__ = [
    "EARNED_LOW",
    "FILE_NAME",
    "GOLDEN_STATEMENTS",
    "REASONS",
    "TRIAL",
    "ArmScores",
    "Blend",
    "BundleError",
    "BundleGone",
    "Change",
    "Checkpoint",
    "Comparison",
    "ConfigError",
    "DatasetSnapshot",
    "Decision",
    "Difference",
    "Dimension",
    "FeedbackRecord",
    "Forecast",
    "InferenceStatus",
    "InferenceUnavailable",
    "Kind",
    "Lack",
    "ModelVersion",
    "OptionSpec",
    "Precision",
    "Preview",
    "Problem",
    "Release",
    "ReleaseConflict",
    "RowError",
    "Rule",
    "RuleError",
    "RuleSet",
    "RunRefused",
    "Schema",
    "SchemaError",
    "SnapshotOptions",
    "TrainingError",
    "TrainingRun",
    "Wish",
    "cancel_run",
    "check_texts",
    "compare",
    "compare_runs",
    "decide",
    "describe_run",
    "diff_to_previous",
    "draw_ablation",
    "ensure_starter_release",
    "estimate_precision",
    "find_snapshot",
    "forecast_run",
    "freeze_snapshot",
    "get_release",
    "get_run",
    "have_same_arms",
    "inference_status",
    "keep_rules",
    "list_ablation_tables",
    "list_bases",
    "list_checkpoints",
    "list_fingerprints",
    "list_kinds",
    "list_options",
    "list_releases",
    "list_runs",
    "list_snapshots",
    "load_rules",
    "load_schema",
    "makes_release",
    "meets",
    "preview_snapshot",
    "read_blend",
    "read_row_texts",
    "read_rule_texts",
    "read_suite",
    "read_texts",
    "roll_back",
    "run_options",
    "serving_release",
    "start_run",
    "title_of",
    "work_here",
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
