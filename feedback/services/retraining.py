"""From answers to a training run, and what serves afterwards: training's verbs with their audit events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db import transaction

from feedback import ml, queries
from feedback.models import Person
from feedback.services import audit
from feedback.services.records import feedback_records


@dataclass(frozen=True, slots=True)
class Launch:
    """A run as somebody wants it."""

    kind: str
    options: Mapping[str, object] = field(default_factory=dict)
    publishes: bool = True
    snapshot: ml.DatasetSnapshot | None = None
    """None: what people have said so far is frozen, as `snapshot_options` say."""
    snapshot_options: Mapping[str, object] | None = None
    base: str = ""
    """Name of a base model; blank: that of the serving arm."""
    cloned_from: int | None = None


@transaction.atomic
def launch_run(launch: Launch, *, by: Person | None) -> ml.TrainingRun:
    """Queue a run; `by` is None for the operator. Raises ConfigError naming the option, or a TrainingError."""
    ml.run_options(launch.kind)  # an unknown kind is refused before the snapshot is made
    by_id = by.pk if by else None
    snapshot = launch.snapshot or ml.freeze_snapshot(feedback_records(), by_id=by_id, options=launch.snapshot_options)
    run = ml.start_run(
        launch.kind,
        snapshot=snapshot,
        options=launch.options,
        publishes=launch.publishes,
        by_id=by_id,
        base=launch.base,
        cloned_from=launch.cloned_from,
    )
    data = {"kind": launch.kind, "snapshot": snapshot.content_hash, "publishes": launch.publishes}
    audit.record("start_run", run, by=by, data=data)
    return run


def forecast(launch: Launch) -> ml.Forecast:
    """How long it would take and what is missing for it. Raises ConfigError naming the option."""
    fresh = count_fresh_rows() if launch.snapshot is None else {}
    return ml.forecast_run(ml.Wish(launch.kind, launch.options, launch.snapshot, fresh, launch.base))


def count_fresh_rows() -> dict[str, int]:
    """About how many rows a snapshot frozen now would have in each file."""
    counts = queries.feedback_counts()
    judged = counts.correct + counts.corrected + counts.incorrect
    return {
        "train.jsonl": counts.usable + ml.SnapshotOptions().replay_rows,
        "kto.jsonl": judged,
        "rewards.jsonl": judged,
        "pairs.jsonl": counts.corrected,
    }


@transaction.atomic
def cancel(run: ml.TrainingRun, *, by: Person) -> ml.TrainingRun:
    """Ask the run to stop. Raises RunEnded, a TrainingError."""
    cancelled = ml.cancel_run(run.pk)
    audit.record("cancel_run", cancelled, by=by)
    return cancelled


@transaction.atomic
def roll_back(release: ml.Release, *, reason: str, by: Person) -> ml.Release:
    """A new entry of the history that serves the old bundle. Raises ReleaseConflict when somebody else was first."""
    restored = ml.roll_back(release.pk, by_id=by.pk, reason=reason)
    audit.record("roll_back", restored, by=by, data={"restores": release.name, "reason": reason})
    return restored
