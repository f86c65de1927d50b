"""The door to training, for the web side. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from classifier.errors import ReleaseConflict
from training import preflight, registry, tracking
from training.corpus.compile import FeedbackRecord
from training.corpus.manifest import REASONS, Difference
from training.corpus.rows import RowError, iter_jsonl
from training.corpus.snapshot import SnapshotOptions
from training.errors import BundleGone, NoServingRelease, NothingToRestore, RunEnded, RunRefused, TrainingError
from training.estimates import Estimate
from training.evaluation import evaluate_release
from training.jobs.config import ConfigError, OptionSpec, RulesOptions, option_specs, parse_options
from training.jobs.kinds import Kind, list_kinds, makes_release, title_of
from training.machine import Machine
from training.models import DatasetSnapshot, ModelVersion, Release, TrainingRun, serving_release
from training.preflight import Forecast, Lack, Wish
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
from training.snapshots import Preview, diff_to_previous, freeze_snapshot, preview_snapshot
from training.tracking import Checkpoint, Comparison

if TYPE_CHECKING:
    from training.jobs.ablation_text import Table
    from training.jobs.suite import Case
    from training.plots import Plot

__all__ = [
    "REASONS",
    "BundleGone",
    "Checkpoint",
    "Comparison",
    "ConfigError",
    "DatasetSnapshot",
    "Difference",
    "Estimate",
    "FeedbackRecord",
    "Forecast",
    "Kind",
    "Lack",
    "Machine",
    "ModelVersion",
    "NoServingRelease",
    "NothingToRestore",
    "OptionSpec",
    "Preview",
    "Release",
    "ReleaseConflict",
    "RowError",
    "RunEnded",
    "RunRefused",
    "SnapshotOptions",
    "TrainingError",
    "TrainingRun",
    "Wish",
    "cancel_run",
    "compare_runs",
    "describe_run",
    "diff_to_previous",
    "draw_ablation",
    "ensure_starter_release",
    "evaluate_release",
    "find_snapshot",
    "forecast_run",
    "freeze_snapshot",
    "get_release",
    "get_run",
    "have_same_arms",
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
    "makes_release",
    "meets",
    "preview_snapshot",
    "read_blend",
    "read_row_texts",
    "read_rule_texts",
    "read_suite",
    "roll_back",
    "run_options",
    "serving_release",
    "start_run",
    "title_of",
    "work_here",
]


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
    base: str = "",
    cloned_from: int | None = None,
) -> TrainingRun:
    """Queue a run on `base`, the serving arm's base model where blank.

    Raises ConfigError naming the option, NoServingRelease, or RunRefused where worker or data lack something.
    """
    given = {name: value for name, value in options.items() if value not in ("", None)}
    parsed = parse_options(kind, given)
    if isinstance(parsed, RulesOptions) and kept_rules(parsed.rules_version) is None:
        raise ConfigError("rules_version names no rules that wait for a run: publish a draft, which starts one")
    if serving_release() is None:
        raise NoServingRelease("load the starter release first: manage.py load_starter")
    config: dict[str, Any] = {"options": given}
    if kind in list_kinds():
        forecast = preflight.forecast_run(Wish(kind, given, snapshot, base=base))
        if forecast.refusal:
            raise RunRefused(forecast.refusal)
        config |= {"estimate": forecast.estimate.as_dict()}
    config |= {name: value for name, value in (("base", base), ("cloned_from", cloned_from)) if value}
    with transaction.atomic():
        run = TrainingRun.objects.create(
            kind=kind,
            snapshot=snapshot,
            config=config,
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


def forecast_run(wish: Wish) -> Forecast:
    """How long it would take and what is missing for it. Raises ConfigError naming the option."""
    return preflight.forecast_run(wish)


def list_bases() -> list[str]:
    """Names of the base models that the training worker has."""
    return [base.name for base in preflight.read_machine()[0].bases]


def find_snapshot(content_hash: str) -> DatasetSnapshot | None:
    """The one whose hash begins so; the newest of several; None where there is none."""
    return list_snapshots().filter(content_hash__startswith=content_hash).first()


def describe_run(run: TrainingRun) -> dict[str, Any]:
    """The whole record of a run as JSON."""
    return tracking.describe_run(run)


def list_checkpoints(run: TrainingRun) -> list[Checkpoint]:
    """Complete ones, newest first; empty where the run's folder is not on this machine."""
    return tracking.list_checkpoints(run)


def list_options(run: TrainingRun) -> dict[str, Any]:
    """Every option with the value that the run has, defaults included."""
    return tracking.list_options(run)


def compare_runs(runs: Sequence[TrainingRun]) -> dict[str, list[Comparison]]:
    """What the runs were made of and what came of them, side by side: title -> lines."""
    return {
        "Data and code": tracking.compare_origins(runs),
        "Options": tracking.compare_options(runs),
        "Figures": tracking.compare_figures(runs),
    }


def read_row_texts(run: TrainingRun, ids: Iterable[str]) -> dict[str, str]:
    """Texts of a run's held-out rows by id; those that are not on this machine are left out."""
    wanted = set(ids)
    path = run.run_dir / "data" / "test.jsonl"
    if not wanted or not path.is_file():
        return {}
    return {str(raw["id"]): str(raw["text"]) for _, raw in iter_jsonl(path) if raw.get("id") in wanted}


def work_here(run_id: int) -> None:
    """Do a queued run's work in this process, as a training worker would."""
    # Here and not above: the supervisor is nothing that a page needs.
    from training.supervisor import supervise

    supervise(run_id)


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
