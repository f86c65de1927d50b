"""The append-only hash chain of what people did. An act and its event stand in one transaction or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone

from feedback.models import AuditEvent, Person

GENESIS = "0" * 64
CHAIN_LOCK = 0x48454544
"""Key of the advisory lock that puts writers in a row; any number that nothing else here uses."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is to be recorded: hashes and ids, never a text."""

    verb: str
    noun: models.Model
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenLink:
    event_id: int
    reason: str


def record(verb: str, noun: models.Model, *, by: Person | None, data: Mapping[str, Any] | None = None) -> None:
    """Append one event. Call it last in the transaction: it holds the chain's lock until the commit."""
    record_all([Act(verb, noun, data or {})], by=by)


def record_all(acts: Sequence[Act], *, by: Person | None) -> None:
    """Append several events for one wait and two more queries, however many they are."""
    if not acts:
        return
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an audit event belongs into the transaction of the act it records")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CHAIN_LOCK])
    head = head_hash()
    events = []
    for act in acts:
        event = AuditEvent(
            at=timezone.now(),
            actor=by,
            verb=act.verb,
            noun=str(act.noun._meta.model_name),
            noun_id=str(act.noun.pk),
            data=dict(act.data),
            previous_hash=head,
        )
        head = event.hash = hash_event(event)
        events.append(event)
    AuditEvent.objects.bulk_create(events)


def hash_event(event: AuditEvent) -> str:
    """SHA-256 over the previous hash and the event's canonical JSON."""
    body = {
        "actor": event.actor_id,
        "at": event.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "data": event.data,
        "noun": event.noun,
        "noun_id": event.noun_id,
        "verb": event.verb,
    }
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256((event.previous_hash + canonical).encode()).hexdigest()


def head_hash() -> str:
    """The newest hash: kept elsewhere, it also proves that no event was cut off the end."""
    return AuditEvent.objects.order_by("-id").values_list("hash", flat=True).first() or GENESIS


def verify_chain() -> BrokenLink | None:
    """The first event that does not fit, or None. Reads all events, a few at a time."""
    expected = GENESIS
    for event in AuditEvent.objects.order_by("id").iterator(chunk_size=2000):
        if event.previous_hash != expected:
            return BrokenLink(event.pk, "it does not follow the event before it: events were removed, added or moved")
        if event.hash != hash_event(event):
            return BrokenLink(event.pk, "its content was changed after it was written")
        expected = event.hash
    return None
