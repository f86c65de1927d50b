from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.utils import DatabaseError

from feedback.models import AuditEvent, Document
from feedback.services import audit
from tests.cast import setup_cast, setup_document
from tests.feedback.threads import run_together


@pytest.fixture
def document(db: None) -> Document:
    return setup_document()


def record(document: Document, times: int = 1) -> None:
    for number in range(times):
        with transaction.atomic():
            audit.record("test", document, by=None, data={"number": number})


def tamper(sql: str, *params: str | int) -> None:
    """As a superuser of the database can: with the triggers switched off."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(sql, params)
        cursor.execute("SET session_replication_role = origin")


def broken_event() -> int | None:
    broken = audit.verify_chain()
    return broken.event_id if broken else None


def test_untouched_chain_verifies(document: Document) -> None:
    record(document, 5)
    assert audit.verify_chain() is None


@pytest.mark.parametrize(
    "change",
    ["verb = 'other'", "noun_id = '0'", "data = '{}'", "at = at + interval '1 second'", "hash = repeat('a', 64)"],
)
def test_changed_event_is_located(document: Document, change: str) -> None:
    record(document, 5)
    third = AuditEvent.objects.order_by("id")[2].pk
    tamper(f"UPDATE feedback_auditevent SET {change} WHERE id = %s", third)
    assert broken_event() == third


def test_changed_actor_is_located(document: Document) -> None:
    record(document, 2)
    first = AuditEvent.objects.order_by("id")[0].pk
    tamper("UPDATE feedback_auditevent SET actor_id = %s WHERE id = %s", setup_cast().ada.pk, first)
    assert broken_event() == first


def test_removed_event_is_located_at_the_next_one(document: Document) -> None:
    record(document, 5)
    ids = list(AuditEvent.objects.order_by("id").values_list("id", flat=True))
    tamper("DELETE FROM feedback_auditevent WHERE id = %s", ids[2])
    assert broken_event() == ids[3]


def test_rehashed_event_still_breaks_the_next_one(document: Document) -> None:
    record(document, 3)
    second, third = AuditEvent.objects.order_by("id")[1:3]
    second.verb = "other"
    tamper(
        "UPDATE feedback_auditevent SET verb = 'other', hash = %s WHERE id = %s", audit.hash_event(second), second.pk
    )
    assert broken_event() == third.pk


@pytest.mark.parametrize("sql", ["UPDATE feedback_auditevent SET verb = 'other'", "DELETE FROM feedback_auditevent"])
def test_the_database_refuses_changes(document: Document, sql: str) -> None:
    record(document)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


def test_an_act_without_a_transaction_is_refused(transactional_db: None) -> None:
    with pytest.raises(RuntimeError, match="transaction of the act"):
        audit.record("test", setup_document(case=False), by=None)


def test_command_names_the_broken_event(document: Document) -> None:
    record(document, 2)
    first = AuditEvent.objects.order_by("id")[0].pk
    tamper("UPDATE feedback_auditevent SET verb = 'other' WHERE id = %s", first)
    with pytest.raises(CommandError, match=f"audit event {first}: its content was changed"):
        call_command("verify_audit")


def test_command_with_an_anchored_head_notices_a_cut_end(document: Document) -> None:
    record(document, 3)
    head = audit.head_hash()
    out = StringIO()
    call_command("verify_audit", head=head, stdout=out)
    assert f"unbroken. Head: {head}" in out.getvalue()
    tamper("DELETE FROM feedback_auditevent WHERE hash = %s", head)
    with pytest.raises(CommandError, match="cut off its end"):
        call_command("verify_audit", head=head)


@pytest.mark.django_db(transaction=True)
def test_chain_verifies_after_eight_writers_at_once() -> None:
    document = setup_document(case=False)
    assert run_together(*[lambda: record(document, 20)] * 8) == [None] * 8
    assert AuditEvent.objects.filter(verb="test").count() == 160
    assert audit.verify_chain() is None
