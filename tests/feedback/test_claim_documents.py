from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from feedback import queries
from feedback.models import Assignment, Document, Person
from feedback.services.annotation import (
    claim_documents,
    drop_expired_claims,
    release_claims,
    renew_claims,
)
from tests.cast import Cast, setup_annotation, setup_batch, setup_cast, setup_document, setup_person
from tests.feedback.threads import run_together


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


def expire(**leases: object) -> None:
    assert Assignment.objects.filter(**leases).update(expires_at=timezone.now() - timedelta(seconds=1))


def test_hands_out_the_most_urgent_first(cast: Cast) -> None:
    low, high, middle = (setup_document(priority=priority) for priority in (1, 9, 5))
    assert claim_documents(cast.ana, count=2) == [high, middle]
    assert claim_documents(cast.bo, count=2) == [low]


def test_hands_out_nothing_twice_to_one_person(cast: Cast) -> None:
    document = setup_document()
    assert claim_documents(cast.ana, count=5) == [document]
    assert claim_documents(cast.ana, count=5) == []
    assert list(queries.documents_in_hand(cast.ana)) == [document]


def test_never_hands_out_what_the_person_has_answered(cast: Cast) -> None:
    document = setup_document(answers_wanted=2)
    setup_annotation(cast.ana, document=document)
    assert claim_documents(cast.ana, count=1) == []
    assert claim_documents(cast.bo, count=1) == [document]


def test_skipped_text_goes_to_somebody_else(cast: Cast) -> None:
    document = setup_document()
    setup_annotation(cast.ana, document=document, verdict="skip")
    assert claim_documents(cast.ana, count=1) == []
    assert claim_documents(cast.bo, count=1) == [document]


def test_leases_and_answers_together_stay_within_what_is_wanted(cast: Cast) -> None:
    document = setup_document(answers_wanted=2)
    third = setup_person("third", "annotator")
    setup_annotation(cast.ana, document=document)
    assert claim_documents(cast.bo, count=1) == [document]
    assert claim_documents(third, count=1) == []


def test_unscored_and_unscorable_texts_are_not_handed_out(cast: Cast) -> None:
    setup_document(state=Document.State.UNSCORED)
    setup_document(state=Document.State.UNSCORABLE)
    assert claim_documents(cast.ana, count=5) == []


def test_expired_lease_goes_to_the_next_claimer(cast: Cast) -> None:
    document = setup_document()
    claim_documents(cast.ana, count=1)
    assert claim_documents(cast.bo, count=1) == []
    expire(person=cast.ana)
    assert claim_documents(cast.bo, count=1) == [document]
    assert list(Assignment.objects.values_list("person", flat=True)) == [cast.bo.pk]


def test_own_expired_lease_can_be_claimed_again(cast: Cast) -> None:
    document = setup_document(answers_wanted=3)
    claim_documents(cast.bo, count=1)
    claim_documents(cast.ana, count=1)
    release_claims(cast.bo)
    expire(person=cast.ana)
    claim_documents(cast.ana, count=1)
    drop_expired_claims()
    claim_documents(cast.ana, count=1)
    assert list(queries.documents_in_hand(cast.ana)) == [document]


def test_renewing_does_not_revive_an_expired_lease(cast: Cast) -> None:
    setup_document()
    claim_documents(cast.ana, count=1)
    assert renew_claims(cast.ana) == 1
    expire(person=cast.ana)
    assert renew_claims(cast.ana) == 0


def test_released_text_is_free_at_once(cast: Cast) -> None:
    first, second = setup_document(priority=2), setup_document(priority=1)
    claim_documents(cast.ana, count=2)
    assert release_claims(cast.ana, document_ids=[first.pk]) == 1
    assert claim_documents(cast.bo, count=2) == [first]
    assert list(queries.documents_in_hand(cast.ana)) == [second]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wanted", [1, 2])
def test_eight_claimers_at_once_never_get_more_than_wanted(wanted: int) -> None:
    batch = setup_batch()
    documents = [setup_document(batch=batch, answers_wanted=wanted) for _ in range(200)]
    people = [setup_person(f"claimer-{number}", "annotator") for number in range(8)]

    def claim_all(person: Person) -> list[int]:
        claimed: list[int] = []
        while batch := claim_documents(person, count=5):
            claimed += [document.pk for document in batch]
        return claimed

    hands = run_together(*(lambda person=person: claim_all(person) for person in people))
    times = Counter(pk for hand in hands for pk in hand)  # type: ignore[union-attr]
    assert times == {document.pk: wanted for document in documents}
    assert all(len(set(hand)) == len(hand) for hand in hands)  # type: ignore[arg-type]
