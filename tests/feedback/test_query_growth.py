"""As many SQL statements for many rows as for few."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback import ml, queries
from feedback.models import Document
from feedback.services.annotation import claim_documents
from feedback.services.feedback_file import import_feedback, iter_feedback_file, iter_records_jsonl
from feedback.services.intake import IntakeRow, add_documents
from feedback.services.records import feedback_records
from feedback.services.scoring import keep_decisions
from tests.cast import AT_RISK, Cast, setup_annotation, setup_cast, setup_document, setup_release, spread


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


def count(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(
        connection,
    ) as queries_made:
        work()
    return len(queries_made)


def score(documents: list[Document]) -> None:
    decision = ml.Decision(release=setup_release().name, labels=AT_RISK, probabilities=spread(AT_RISK))
    keep_decisions(documents, [decision] * len(documents))


def test_scoring_does_not_grow_with_texts_at_risk(cast: Cast) -> None:
    few, many = ([setup_document(state=Document.State.UNSCORED) for _ in range(n)] for n in (1, 20))
    setup_release()
    assert count(lambda: score(few)) == count(lambda: score(many))


def test_intake_does_not_grow_with_rows(cast: Cast) -> None:
    def add(first: int, last: int) -> None:
        add_documents([IntakeRow(row, f"row {row}") for row in range(first, last)], kind="api", by=cast.ada)

    assert count(lambda: add(0, 1)) == count(lambda: add(1, 50))


def test_import_does_not_grow_with_rows(cast: Cast) -> None:
    def load(first: int, last: int) -> None:
        rows = [{"text": f"row {row}", "correct_labels": "risk: none"} for row in range(first, last)]
        import_feedback(json.dumps(rows).encode(), by=cast.ada)

    assert count(lambda: load(0, 1)) == count(lambda: load(1, 50))


@pytest.mark.parametrize("export", [iter_feedback_file, iter_records_jsonl, feedback_records])
def test_export_does_not_grow_with_answers(cast: Cast, export: Callable[[], object]) -> None:
    setup_annotation(cast.ana)
    few = count(lambda: list(export()))  # type: ignore[call-overload]
    for _ in range(10):
        setup_annotation(cast.ana)
    assert count(lambda: list(export())) == few  # type: ignore[call-overload]


def test_claim_is_one_statement_and_one_read(cast: Cast) -> None:
    for _ in range(10):
        setup_document()
    assert count(lambda: claim_documents(cast.ana, count=5)) == 2


def test_agreement_of_releases_is_one_statement(cast: Cast) -> None:
    for name in ("one", "two"):
        setup_release(name=name)
        setup_annotation(cast.ana)
        setup_annotation(cast.ana, verdict="incorrect")
    assert count(queries.agreement_by_release) == 1
    assert [(row.release, row.answers, row.share) for row in queries.agreement_by_release()] == [
        ("two", 2, 0.5),
        ("one", 2, 0.5),
    ]


def test_counts_say_what_stands(cast: Cast) -> None:
    setup_document()
    setup_document(state=Document.State.UNSCORED)
    setup_document(labels=AT_RISK)
    setup_annotation(cast.ana)
    claim_documents(cast.bo, count=1)
    assert queries.queue_counts() == queries.QueueCounts(unscored=1, unscorable=0, waiting=2, leased=1, answered=1)
    assert queries.feedback_counts() == queries.FeedbackCounts(1, 0, 0, 0, 0)
    assert queries.case_counts() == queries.CaseCounts(high=1, medium=0, unscored=0, overdue=0, supervisor=0)
