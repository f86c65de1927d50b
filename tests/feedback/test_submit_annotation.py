from __future__ import annotations

from uuid import uuid4

import pytest

from feedback.errors import AnswerConflict, InvalidInput, Missing
from feedback.ml import SchemaError
from feedback.models import Annotation, Assignment, AuditEvent, Document
from feedback.services import audit
from feedback.services.annotation import Submission, claim_documents, submit_annotation
from tests.cast import LABELS, Cast, setup_annotation, setup_cast, setup_document, setup_prediction, setup_release
from tests.feedback.threads import run_together


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


def submission(document: Document, verdict: str = "correct", **fields: object) -> Submission:
    return Submission(document.pk, verdict, fields.pop("key", None) or uuid4(), **fields)  # type: ignore[arg-type]


def test_keeps_what_was_judged_and_what_is_right(cast: Cast) -> None:
    document = setup_document(labels={"risk": "low"})
    kept = submit_annotation(submission(document, "corrected", labels={"risk": "none"}), by=cast.ana)
    kept.refresh_from_db()
    assert kept.prediction == document.prediction
    assert kept.judged_labels == LABELS | {"risk": "low"}
    assert kept.labels == LABELS


def test_agreeing_takes_the_predicted_labels(cast: Cast) -> None:
    document = setup_document(labels={"stress": "high"})
    assert submit_annotation(submission(document), by=cast.ana).labels == LABELS | {"stress": "high"}


def test_incorrect_without_correction_says_nothing_about_what_is_right(cast: Cast) -> None:
    assert submit_annotation(submission(setup_document(), "incorrect"), by=cast.ana).labels == {}


def test_an_answer_ends_the_lease_and_counts(cast: Cast) -> None:
    document = setup_document()
    claim_documents(cast.ana, count=1)
    submit_annotation(submission(document), by=cast.ana)
    document.refresh_from_db()
    assert (document.answers, Assignment.objects.count()) == (1, 0)


@pytest.mark.parametrize("verdict", ["unsure", "skip"])
def test_unsure_and_skip_do_not_count(cast: Cast, verdict: str) -> None:
    document = setup_document()
    submit_annotation(submission(document, verdict), by=cast.ana)
    document.refresh_from_db()
    assert document.answers == 0


def test_the_prediction_that_was_shown_is_the_one_judged(cast: Cast) -> None:
    document = setup_document()
    shown = document.prediction
    setup_prediction(document=document, release=setup_release(name="next"), labels={"risk": "medium"})
    kept = submit_annotation(submission(document, prediction_id=shown.pk), by=cast.ana)  # type: ignore[union-attr]
    assert kept.prediction == shown
    assert kept.labels == LABELS


def test_rejects_the_prediction_of_another_document(cast: Cast) -> None:
    other = setup_document().prediction_id
    with pytest.raises(InvalidInput, match="not one of document"):
        submit_annotation(submission(setup_document(), prediction_id=other), by=cast.ana)


@pytest.mark.parametrize(
    ("verdict", "labels", "message"),
    [
        ("corrected", {}, "needs labels"),
        ("corrected", {"risk": "none"}, "those of the prediction"),
        ("correct", {"risk": "high"}, "go with the verdict corrected"),
        ("splendid", {}, "verdict must be one of"),
    ],
)
def test_rejects_labels_that_do_not_go_with_the_verdict(
    cast: Cast, verdict: str, labels: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        submit_annotation(submission(setup_document(), verdict, labels=labels), by=cast.ana)


def test_rejects_unknown_label(cast: Cast) -> None:
    with pytest.raises(SchemaError, match="risk is 'extreme'"):
        submit_annotation(submission(setup_document(), "corrected", labels={"risk": "extreme"}), by=cast.ana)


def test_blind_answer_equal_to_the_prediction_is_agreement(cast: Cast) -> None:
    given = submission(setup_document(), "corrected", labels=LABELS, was_blind=True)
    assert submit_annotation(given, by=cast.ana).verdict == "correct"


def test_rejects_a_document_that_is_not_there(cast: Cast) -> None:
    with pytest.raises(Missing):
        submit_annotation(Submission(1, "skip", uuid4()), by=cast.ana)


def test_same_key_is_the_same_answer(cast: Cast) -> None:
    given = submission(setup_document())
    assert submit_annotation(given, by=cast.ana) == submit_annotation(given, by=cast.ana)
    assert Annotation.objects.count() == 1


def test_denies_a_key_that_belongs_to_somebody_else(cast: Cast) -> None:
    given = submission(setup_document())
    submit_annotation(given, by=cast.ana)
    with pytest.raises(AnswerConflict, match="another answer"):
        submit_annotation(given, by=cast.bo)


def test_denies_second_annotation_by_same_person(cast: Cast) -> None:
    document = setup_document(answers_wanted=2)
    setup_annotation(cast.ana, document=document)
    with pytest.raises(AnswerConflict, match="answered this text already"):
        setup_annotation(cast.ana, document=document)


def test_lapsed_lease_is_no_obstacle_while_nobody_answered(cast: Cast) -> None:
    document = setup_document()
    claim_documents(cast.ana, count=1)
    Assignment.objects.all().delete()
    claim_documents(cast.bo, count=1)
    setup_annotation(cast.ana, document=document)
    with pytest.raises(AnswerConflict, match="somebody else"):
        setup_annotation(cast.bo, document=document)


def test_skip_is_kept_even_when_the_text_has_its_answers(cast: Cast) -> None:
    document = setup_document()
    setup_annotation(cast.ana, document=document)
    assert setup_annotation(cast.bo, document=document, verdict="skip").pk


def test_nothing_is_kept_when_the_audit_event_cannot_be(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    document = setup_document()
    before = AuditEvent.objects.count()
    monkeypatch.setattr(audit, "hash_event", lambda event: "x" * 65)  # longer than its column: the database refuses
    with pytest.raises(Exception, match="too long"):
        submit_annotation(submission(document), by=cast.ana)
    document.refresh_from_db()
    assert (Annotation.objects.count(), document.answers, AuditEvent.objects.count()) == (0, 0, before)


@pytest.mark.django_db(transaction=True)
def test_double_click_makes_one_row() -> None:
    cast, document = setup_cast(), setup_document()
    given = submission(document)
    kept = run_together(*[lambda: submit_annotation(given, by=cast.ana).pk] * 4)
    assert len(set(kept)) == 1
    assert Annotation.objects.count() == 1
    document.refresh_from_db()
    assert document.answers == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_people_racing_for_one_text_the_second_gets_a_conflict() -> None:
    cast, document = setup_cast(), setup_document()
    ana, bo = run_together(
        lambda: submit_annotation(submission(document), by=cast.ana),
        lambda: submit_annotation(submission(document), by=cast.bo),
    )
    assert {type(ana), type(bo)} == {Annotation, AnswerConflict}
    document.refresh_from_db()
    assert document.answers == 1


@pytest.mark.django_db(transaction=True)
def test_count_of_answers_is_right_when_many_answer_at_once() -> None:
    cast, document = setup_cast(), setup_document(answers_wanted=4)
    people = [cast.ana, cast.bo, cast.mo, cast.ada]
    run_together(*(lambda person=person: setup_annotation(person, document=document).pk for person in people))
    document.refresh_from_db()
    assert document.answers == document.annotations.count() == 4
