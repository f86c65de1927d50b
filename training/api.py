"""The door to training, for the web side. Imports no torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from classifier.errors import ReleaseConflict
from training import registry
from training.corpus.compile import FeedbackRecord
from training.corpus.rows import RowError
from training.corpus.snapshot import SnapshotOptions, freeze, parse_snapshot_options
from training.errors import BundleGone, NoServingRelease, NothingToRestore, RunEnded, TrainingError
from training.evaluation import evaluate_release
from training.jobs.config import ConfigError, OptionSpec, RulesOptions, option_specs, parse_options
from training.models import DatasetSnapshot, ModelVersion, Release, TrainingRun, serving_release
from training.queue import enqueue_run
from training.rule_files import (
    have_same_arms,
    keep_rules,
    kept_rules,
    list_fingerprints,
    load_rules,
    read_blend,
    read_rule_texts,
)

if TYPE_CHECKING:
    from training.jobs.ablation_text import Table
    from training.jobs.suite import Case
    from training.plots import Plot

__all__ = [
    "BundleGone",
    "ConfigError",
    "DatasetSnapshot",
    "FeedbackRecord",
    "ModelVersion",
    "NoServingRelease",
    "NothingToRestore",
    "OptionSpec",
    "Release",
    "ReleaseConflict",
    "RowError",
    "RunEnded",
    "SnapshotOptions",
    "TrainingError",
    "TrainingRun",
    "cancel_run",
    "draw_ablation",
    "ensure_starter_release",
    "evaluate_release",
    "freeze_snapshot",
    "get_release",
    "get_run",
    "have_same_arms",
    "keep_rules",
    "list_ablation_tables",
    "list_fingerprints",
    "list_releases",
    "list_runs",
    "list_snapshots",
    "load_rules",
    "meets",
    "read_blend",
    "read_rule_texts",
    "read_suite",
    "roll_back",
    "run_options",
    "serving_release",
    "start_run",
]


def freeze_snapshot(
    records: Iterable[FeedbackRecord], *, by_id: int | None, options: Mapping[str, Any] | None = None
) -> DatasetSnapshot:
    """The rows of now, immutable. The same content gives the same snapshot. Raises ConfigError."""
    try:
        parsed = parse_snapshot_options(dict(options or {}))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    frozen = freeze(list(records), parsed, Path(settings.SNAPSHOTS_DIR))
    snapshot, _ = DatasetSnapshot.objects.get_or_create(
        content_hash=frozen.content_hash,
        defaults={
            "uri": str(frozen.folder),
            "manifest": frozen.manifest,
            "rows": frozen.rows,
            "created_by_id": by_id,
        },
    )
    return snapshot


def run_options(kind: str) -> tuple[OptionSpec, ...]:
    """What a form for a run of this kind offers. Raises ConfigError for an unknown kind."""
    return option_specs(kind)


def start_run(
    kind: str,
    *,
    snapshot: DatasetSnapshot,
    options: Mapping[str, object],
    publishes: bool = True,
    by_id: int | None = None,
) -> TrainingRun:
    """Queue a run. Raises ConfigError naming the option, or NoServingRelease."""
    given = {name: value for name, value in options.items() if value not in ("", None)}
    parsed = parse_options(kind, given)
    if isinstance(parsed, RulesOptions) and kept_rules(parsed.rules_version) is None:
        raise ConfigError("rules_version names no rules that wait for a run: publish a draft, which starts one")
    if serving_release() is None:
        raise NoServingRelease("load the starter release first: manage.py load_starter")
    with transaction.atomic():
        run = TrainingRun.objects.create(
            kind=kind,
            snapshot=snapshot,
            config={"options": given},
            publishes=publishes,
            created_by_id=by_id,
        )
        transaction.on_commit(lambda: enqueue_run(run.pk))
    return run


def cancel_run(run_id: int) -> TrainingRun:
    """A queued run is cancelled at once; a running one writes a checkpoint and stops. Raises DoesNotExist, RunEnded."""
    with transaction.atomic():
        run = TrainingRun.objects.select_for_update().get(pk=run_id)
        if run.is_ended:
            raise RunEnded(f"run {run_id} has ended already: {run.state}")
        run.cancel_requested_at = run.cancel_requested_at or timezone.now()
        if run.state == TrainingRun.State.QUEUED:
            run.state, run.stage, run.finished_at = TrainingRun.State.CANCELLED, "cancelled", timezone.now()
        run.save(update_fields=["cancel_requested_at", "state", "stage", "finished_at"])
    return run


def list_runs() -> QuerySet[TrainingRun]:
    """Newest first."""
    return TrainingRun.objects.select_related("snapshot", "created_by").order_by("-id")


def get_run(run_id: int) -> TrainingRun:
    """Raises TrainingRun.DoesNotExist."""
    return list_runs().get(pk=run_id)


def list_snapshots() -> QuerySet[DatasetSnapshot]:
    """Newest first."""
    return DatasetSnapshot.objects.order_by("-id")


def list_releases() -> QuerySet[Release]:
    """Newest first: the first one serves."""
    return Release.objects.select_related("previous", "restores", "version", "version__run", "created_by").order_by(
        "-id"
    )


def get_release(release_id: int) -> Release:
    """Raises Release.DoesNotExist."""
    return list_releases().get(pk=release_id)


def roll_back(release_id: int, *, by_id: int | None, reason: str) -> Release:
    """Raises Release.DoesNotExist, NothingToRestore or ReleaseConflict."""
    return registry.roll_back(get_release(release_id), by_id=by_id, reason=reason[:200])


def ensure_starter_release(bundle: Path | None = None) -> Release:
    """The starter release, made once from the shipped bundle. Raises BundleError."""
    return registry.ensure_starter_release(bundle or Path(settings.STARTER_BUNDLE))


def read_suite(path: Path) -> "list[Case]":
    """The cases of a functional suite. Raises RowError naming file, line and field."""
    # Here and not above, as below: numpy is nothing that most pages need.
    from training.jobs import suite

    return suite.read_suite(path)


def meets(case: "Case", labels: Mapping[str, str]) -> bool:
    """Whether an answer meets what the case asserts."""
    from training.jobs import suite

    return suite.passes(case, labels)


def list_ablation_tables(report: Mapping[str, Any]) -> "list[Table]":
    """The figures of a report that `training.jobs.ablation` made."""
    from training.jobs import ablation_text

    return ablation_text.list_tables(report)


def draw_ablation(report: Mapping[str, Any]) -> "list[Plot]":
    """The same as plots, where there is something to draw."""
    # Here and not above: matplotlib takes half a second, and most pages have no plot.
    from training import plots

    return plots.draw_ablation(report)
