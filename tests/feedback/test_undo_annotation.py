from __future__ import annotations

import pytest

from feedback import queries
from feedback.errors import UndoRefused
from feedback.models import Annotation
from feedback.services.annotation import UNDO_DEPTH, claim_documents, undo_annotation
from tests.cast import Cast, setup_annotation, setup_cast, setup_document
from tests.feedback.threads import run_together


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


def test_takes_the_answer_back_and_the_text_in_hand(cast: Cast) -> None:
    document = setup_document()
    annotation = setup_annotation(cast.ana, document=document)
    assert undo_annotation(annotation, by=cast.ana) == document
    document.refresh_from_db()
    assert document.answers == 0
    assert list(queries.documents_in_hand(cast.ana)) == [document]
    assert Annotation.objects.get().undone_at is not None


def test_text_can_be_answered_again(cast: Cast) -> None:
    document = setup_document()
    undo_annotation(setup_annotation(cast.ana, document=document), by=cast.ana)
    setup_annotation(cast.ana, document=document, verdict="incorrect")
    document.refresh_from_db()
    assert document.answers == 1


def test_undoing_twice_is_undoing_once(cast: Cast) -> None:
    document = setup_document(answers_wanted=2)
    setup_annotation(cast.bo, document=document)
    annotation = setup_annotation(cast.ana, document=document)
    undo_annotation(annotation, by=cast.ana)
    undo_annotation(annotation, by=cast.ana)
    document.refresh_from_db()
    assert document.answers == 1


def test_text_that_somebody_else_holds_is_not_taken_from_them(cast: Cast) -> None:
    document = setup_document()
    annotation = setup_annotation(cast.ana, document=document, verdict="skip")
    claim_documents(cast.bo, count=1)
    undo_annotation(annotation, by=cast.ana)
    assert list(queries.documents_in_hand(cast.ana)) == []
    assert list(queries.documents_in_hand(cast.bo)) == [document]


def test_denies_undo_of_anothers_answer(cast: Cast) -> None:
    annotation = setup_annotation(cast.ana)
    with pytest.raises(UndoRefused, match="only the person"):
        undo_annotation(annotation, by=cast.ada)


def test_reaches_twenty_answers_back_and_no_further(cast: Cast) -> None:
    answers = [setup_annotation(cast.ana) for _ in range(UNDO_DEPTH + 1)]
    assert list(queries.undoable(cast.ana)) == answers[:0:-1]
    with pytest.raises(UndoRefused, match="newest 20"):
        undo_annotation(answers[0], by=cast.ana)
    for annotation in queries.undoable(cast.ana):
        undo_annotation(annotation, by=cast.ana)
    undo_annotation(answers[0], by=cast.ana)
    assert not Annotation.objects.filter(undone_at=None).exists()


@pytest.mark.django_db(transaction=True)
def test_count_stays_right_when_undo_is_clicked_many_times() -> None:
    cast, document = setup_cast(), setup_document(answers_wanted=2)
    setup_annotation(cast.bo, document=document)
    annotation = setup_annotation(cast.ana, document=document)
    run_together(*[lambda: undo_annotation(annotation, by=cast.ana).pk] * 4)
    document.refresh_from_db()
    assert document.answers == 1
