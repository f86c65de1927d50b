"""Each cell of the table from feedback to rows."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from training.corpus.compile import CompileOptions, FeedbackRecord, compile_rows

A = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
B = {"emotion": "sadness", "sentiment": "negative", "stress": "medium", "risk": "low"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def record(**changes: Any) -> FeedbackRecord:
    plain: dict[str, Any] = {
        "text": "the bus was late",
        "text_hash": "aa" * 32,
        "verdict": "correct",
        "judged_labels": A,
        "labels": {},
        "annotator": "p1",
        "created_at": NOON,
        "guideline_version": "1",
        "origin": "web",
    }
    return FeedbackRecord(**plain | changes)


def test_correct_teaches_what_was_judged() -> None:
    (row,) = compile_rows([record()])
    assert (row.labels, row.text, row.source) == (A, "the bus was late", "feedback")


def test_corrected_teaches_the_correction() -> None:
    (row,) = compile_rows([record(verdict="corrected", labels=B)])
    assert row.labels == B


def test_a_dimension_without_correction_stays_unknown() -> None:
    (row,) = compile_rows([record(verdict="corrected", labels={"risk": "low"})])
    assert row.labels == {"risk": "low"}


@pytest.mark.parametrize("verdict", ["incorrect", "unsure", "skip"])
def test_a_verdict_without_an_answer_teaches_nothing(verdict: str) -> None:
    assert compile_rows([record(verdict=verdict)]) == []


def test_agreement_gives_hard_labels() -> None:
    (row,) = compile_rows([record(), record(annotator="p2")])
    assert row.labels == A


def test_disagreement_gives_soft_labels_by_share_of_votes() -> None:
    votes = [record(), record(annotator="p2"), record(annotator="p3", verdict="corrected", labels={**A, "risk": "low"})]
    (row,) = compile_rows(votes)
    assert row.labels["risk"] == {"none": 2 / 3, "low": 1 / 3}
    assert row.labels["emotion"] == "neutral"


def test_majority_can_settle_a_disagreement_but_not_a_tie() -> None:
    wrong = record(annotator="p3", verdict="corrected", labels={**A, "risk": "low"})
    (row,) = compile_rows([record(), record(annotator="p2"), wrong], CompileOptions(disagreement="majority"))
    assert row.labels["risk"] == "none"
    (row,) = compile_rows([record(), wrong], CompileOptions(disagreement="majority"))
    assert row.labels["risk"] == {"none": 0.5, "low": 0.5}


def test_a_moderator_settles_the_dimensions_they_name() -> None:
    votes = [
        record(judged_labels={**B, "risk": "high"}),
        record(annotator="p2", judged_labels={**B, "risk": "high"}),
        record(annotator="m1", verdict="corrected", labels={"risk": "none"}, origin="moderation"),
    ]
    (row,) = compile_rows(votes)
    assert row.labels == {**B, "risk": "none"}


def test_a_later_answer_of_the_same_person_replaces_the_earlier() -> None:
    later = record(verdict="corrected", labels=B, created_at=NOON + timedelta(minutes=1))
    (row,) = compile_rows([later, record()])
    assert row.labels == B


def test_a_later_skip_takes_the_answer_back() -> None:
    assert compile_rows([record(), record(verdict="skip", created_at=NOON + timedelta(minutes=1))]) == []


def test_the_order_of_the_records_does_not_matter() -> None:
    records = [
        record(text_hash=f"{text:064x}", annotator=f"p{person}", labels=labels, verdict="corrected")
        for text in range(5)
        for person, labels in enumerate([A, B, A])
    ]
    expected = compile_rows(records)
    random.Random(1).shuffle(records)
    assert compile_rows(records) == expected
    assert len(expected) == 5
