"""From answers to a frozen data set: what it would hold, and freezing it."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction

from feedback import ml
from feedback.models import Person
from feedback.services import audit
from feedback.services.records import feedback_records


def preview(options: Mapping[str, object]) -> ml.Preview:
    """What `freeze` would make of the answers of now. Raises ConfigError naming the option."""
    return ml.preview_snapshot(feedback_records(), options)


@transaction.atomic
def freeze(options: Mapping[str, object], *, by: Person) -> ml.DatasetSnapshot:
    """The same content gives the snapshot that is there. Raises ConfigError naming the option."""
    snapshot = ml.freeze_snapshot(feedback_records(), by_id=by.pk, options=options)
    audit.record("freeze_snapshot", snapshot, by=by, data={"snapshot": snapshot.content_hash, "rows": snapshot.rows})
    return snapshot
