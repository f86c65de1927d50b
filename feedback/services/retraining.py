"""From answers to a training run, and what serves afterwards: training's verbs with their audit events."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction

from feedback import ml
from feedback.models import Person
from feedback.services import audit
from feedback.services.records import feedback_records


@transaction.atomic
def launch_run(
    kind: str,
    *,
    options: Mapping[str, object],
    publishes: bool,
    by: Person,
    snapshot_options: Mapping[str, object] | None = None,
) -> ml.TrainingRun:
    """Freeze what people have said so far and queue a run on it. Raises ConfigError naming the option."""
    ml.run_options(kind)  # an unknown kind is refused before the snapshot is made
    snapshot = ml.freeze_snapshot(feedback_records(), by_id=by.pk, options=snapshot_options)
    run = ml.start_run(kind, snapshot=snapshot, options=options, publishes=publishes, by_id=by.pk)
    data = {"kind": kind, "snapshot": snapshot.content_hash, "publishes": publishes}
    audit.record("start_run", run, by=by, data=data)
    return run


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
