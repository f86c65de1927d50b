"""Each cell of the table from feedback to label rows."""

import random
from datetime import timedelta

import pytest

from tests.training.feedback_records import NOON, A, B, compiled, record
from training.corpus.compile import FeedbackRecord, compile_feedback
from training.corpus.rows import Row, text_key


def rows(*records: FeedbackRecord, **options: str) -> list[Row]:
    return compiled(*records, **options).rows


def test_correct_teaches_what_was_judged() -> None:
    (row,) = rows(record())
    assert (row.labels, row.text, row.source) == (A, "the bus was late", "feedback")


def test_corrected_teaches_the_correction() -> None:
    (row,) = rows(record(verdict="corrected", labels=B))
    assert row.labels == B


def test_a_dimension_without_correction_stays_unknown() -> None:
    (row,) = rows(record(verdict="corrected", labels={"risk": "low"}))
    assert row.labels == {"risk": "low"}


@pytest.mark.parametrize("verdict", ["incorrect", "unsure", "skip"])
def test_a_verdict_without_an_answer_teaches_nothing(verdict: str) -> None:
    assert rows(record(verdict=verdict)) == []


def test_agreement_gives_hard_labels() -> None:
    (row,) = rows(record(), record(annotator="p2"))
    assert row.labels == A


def test_disagreement_gives_soft_labels_by_share_of_votes() -> None:
    votes = [record(), record(annotator="p2"), record(annotator="p3", verdict="corrected", labels={**A, "risk": "low"})]
    (row,) = rows(*votes)
    assert row.labels["risk"] == {"none": 2 / 3, "low": 1 / 3}
    assert row.labels["emotion"] == "neutral"


def test_majority_can_settle_a_disagreement_but_not_a_tie() -> None:
    wrong = record(annotator="p3", verdict="corrected", labels={**A, "risk": "low"})
    (row,) = rows(record(), record(annotator="p2"), wrong, disagreement="majority")
    assert row.labels["risk"] == "none"
    (row,) = rows(record(), wrong, disagreement="majority")
    assert row.labels["risk"] == {"none": 0.5, "low": 0.5}


def test_a_moderator_settles_the_dimensions_they_name() -> None:
    votes = [
        record(judged_labels={**B, "risk": "high"}),
        record(annotator="p2", judged_labels={**B, "risk": "high"}),
        record(annotator="m1", verdict="corrected", labels={"risk": "none"}, origin="moderation"),
    ]
    (row,) = rows(*votes)
    assert row.labels == {**B, "risk": "none"}


def test_a_later_answer_of_the_same_person_replaces_the_earlier() -> None:
    later = record(verdict="corrected", labels=B, created_at=NOON + timedelta(minutes=1))
    (row,) = rows(later, record())
    assert row.labels == B


def test_a_later_skip_takes_the_answer_back() -> None:
    assert rows(record(), record(verdict="skip", created_at=NOON + timedelta(minutes=1))) == []


def test_the_order_of_the_records_does_not_matter() -> None:
    records = [
        record(f"text {text}", annotator=f"p{person}", labels=labels, verdict="corrected")
        for text in range(5)
        for person, labels in enumerate([A, B, A])
    ]
    expected = compile_feedback(records)
    random.Random(1).shuffle(records)
    assert compile_feedback(records) == expected
    assert len(expected.rows) == 5


def test_spellings_of_a_text_count_once() -> None:
    found = compiled(record("The bus was late!", text_hash="b"), record("the bus was late", text_hash="a"))
    assert [row.text for row in found.rows] == ["the bus was late"]
    assert found.left_out == {"same_text": 1}


def test_excluded_texts_are_left_out_with_the_reason() -> None:
    found = compile_feedback([record("a"), record("b"), record("c")], None, {"gold": {text_key("b")}})
    assert sorted(row.text for row in found.rows) == ["a", "c"]
    assert found.left_out == {"gold": 1}


def test_what_teaches_nothing_is_counted() -> None:
    found = compiled(
        record("a", verdict="skip"),
        record("b", verdict="unsure"),
        record("c", verdict="incorrect"),
        record("d", verdict="incorrect", judged_labels={}),
        record("e"),
        record("e", created_at=NOON + timedelta(minutes=1)),
    )
    assert found.left_out == {"skip": 1, "unsure": 1, "no_correction": 1, "empty": 1, "replaced": 1}


def test_a_row_weighs_what_the_options_say() -> None:
    [row] = compiled(record(), feedback_weight=4.0).rows
    assert row.weight == 4.0
