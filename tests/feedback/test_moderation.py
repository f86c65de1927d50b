from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from feedback.errors import InvalidInput, Missing, StaleClaim
from feedback.models import Annotation, AuditEvent, CaseDecision, Person, Prediction, RiskCase
from feedback.services import moderation
from feedback.services.annotation import flag_document
from feedback.services.moderation import CaseAnswer, claim_next, decide_case, hand_back, reveal, tick
from tests.cast import (
    AT_RISK,
    Cast,
    setup_annotation,
    setup_case,
    setup_cast,
    setup_document,
    setup_person,
    setup_prediction,
    setup_release,
)
from tests.feedback.threads import run_together


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


def claim(person: Person) -> RiskCase:
    case = claim_next(person)
    assert case is not None
    return case


def answer(case: RiskCase, outcome: str = "confirmed", **fields: object) -> CaseAnswer:
    assert case.claim_token is not None
    values = {"token": case.claim_token, "version": case.version, "text_hash": case.document.text_hash}
    return CaseAnswer(outcome=outcome, **(values | fields))  # type: ignore[arg-type]


def score_again(case: RiskCase) -> Prediction:
    """By the next release, which sees high risk."""
    return setup_prediction(document=case.document, release=setup_release(name="next"), labels=AT_RISK)


class TestOpening:
    def test_risk_opens_a_case_in_its_band(self, cast: Cast) -> None:
        assert setup_case().band == RiskCase.Band.HIGH
        assert setup_case(labels=AT_RISK | {"risk": "medium"}).band == RiskCase.Band.MEDIUM

    def test_no_risk_opens_none(self, cast: Cast) -> None:
        setup_document(labels={"risk": "low"})
        assert not RiskCase.objects.exists()

    def test_text_that_could_not_be_scored_opens_one(self, cast: Cast) -> None:
        document = setup_document(state="unscorable")
        prediction = setup_prediction(document=document, probabilities={}, emotion="", sentiment="", stress="", risk="")
        case = moderation.open_case(prediction)
        assert case is not None
        assert (case.band, case.reason) == (RiskCase.Band.UNSCORED, RiskCase.Reason.UNSCORED)

    def test_scoring_again_keeps_the_one_case(self, cast: Cast) -> None:
        case = setup_case()
        assert moderation.open_case(score_again(case)) == case
        assert RiskCase.objects.count() == 1

    def test_higher_risk_makes_an_open_case_more_urgent(self, cast: Cast) -> None:
        case = setup_case(labels=AT_RISK | {"risk": "medium"})
        moderation.open_case(score_again(case))
        before = case.due_at
        case.refresh_from_db()
        assert case.band == RiskCase.Band.HIGH
        assert case.due_at < before

    def test_decided_case_stays_decided(self, cast: Cast) -> None:
        setup_case(labels=AT_RISK | {"risk": "medium"})
        case = claim(cast.mo)
        decide_case(case.pk, answer(case), by=cast.mo)
        moderation.open_case(score_again(case))
        assert claim_next(cast.mo) is None

    def test_flag_opens_a_case_with_its_note(self, cast: Cast) -> None:
        case = flag_document(setup_document(), by=cast.ana, note="please look")
        assert (case.band, case.reason, case.note) == (RiskCase.Band.MEDIUM, RiskCase.Reason.FLAG, "please look")

    def test_flag_opens_a_decided_case_again_and_keeps_the_decision(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        decide_case(case.pk, answer(case), by=cast.mo)
        flag_document(case.document, by=cast.ana)
        again = claim(cast.mo)
        assert (again.pk, again.outcome, again.decisions.count()) == (case.pk, "", 1)


class TestClaiming:
    def test_order_is_band_then_deadline_then_score(self, cast: Cast) -> None:
        medium = setup_case(labels=AT_RISK | {"risk": "medium"})
        late, soon = setup_case(), setup_case()
        RiskCase.objects.filter(pk=soon.pk).update(due_at=timezone.now())
        people = [cast.mo, cast.ada, setup_person("third", "moderator")]
        assert [claim(person).pk for person in people] == [soon.pk, late.pk, medium.pk]

    def test_claiming_again_gives_the_case_in_hand(self, cast: Cast) -> None:
        setup_case()
        setup_case()
        first, second = claim(cast.mo), claim(cast.mo)
        assert (first.pk, first.claim_token) == (second.pk, second.claim_token)

    def test_expired_claim_goes_to_the_next_with_a_new_token(self, cast: Cast) -> None:
        setup_case()
        mine = claim(cast.mo)
        assert claim_next(cast.ada) is None
        RiskCase.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
        assert claim(cast.ada).claim_token != mine.claim_token

    def test_what_was_handed_back_comes_last_for_that_person(self, cast: Cast) -> None:
        case, other = setup_case(), setup_case(labels=AT_RISK | {"risk": "medium"})
        hand_back(case.pk, token=claim(cast.mo).claim_token, by=cast.mo)  # type: ignore[arg-type]
        assert claim(cast.ada).pk == case.pk
        assert claim(cast.mo).pk == other.pk

    def test_supervisor_cases_go_to_admins_only(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        decide_case(case.pk, answer(case, "needs_supervisor"), by=cast.mo)
        assert claim_next(cast.mo) is None
        assert claim(cast.ada).pk == case.pk


class TestDeciding:
    def test_decision_closes_the_case(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        decision = decide_case(case.pk, answer(case, note="called"), by=cast.mo)
        case.refresh_from_db()
        assert (decision.outcome, decision.case_version, decision.note) == ("confirmed", 1, "called")
        assert case.decided_at is not None
        assert (case.claim_token, case.claimed_by) == (None, None)

    def test_double_click_is_one_decision(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        assert decide_case(case.pk, answer(case), by=cast.mo) == decide_case(case.pk, answer(case), by=cast.mo)
        assert CaseDecision.objects.count() == 1

    @pytest.mark.parametrize("change", [{"token": UUID(int=1)}, {"version": 2}, {"text_hash": "0" * 64}])
    def test_stale_decision_writes_nothing(self, cast: Cast, change: dict[str, object]) -> None:
        setup_case()
        case = claim(cast.mo)
        before = AuditEvent.objects.count()
        with pytest.raises(StaleClaim):
            decide_case(case.pk, answer(case, "not_at_risk", risk="none", **change), by=cast.mo)
        case.refresh_from_db()
        assert case.decided_at is None
        assert (CaseDecision.objects.count(), Annotation.objects.count(), AuditEvent.objects.count()) == (0, 0, before)

    def test_denies_a_token_in_the_wrong_hands(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        with pytest.raises(StaleClaim):
            decide_case(case.pk, answer(case), by=cast.ada)

    def test_denies_the_old_holder_after_somebody_took_over(self, cast: Cast) -> None:
        setup_case()
        mine = claim(cast.mo)
        RiskCase.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
        decide_case(mine.pk, answer(claim(cast.ada)), by=cast.ada)
        with pytest.raises(StaleClaim, match="has been decided"):
            decide_case(mine.pk, answer(mine), by=cast.mo)

    def test_not_at_risk_becomes_a_correction_of_the_risk_alone(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        decide_case(case.pk, answer(case, "not_at_risk", risk="none", note="a song"), by=cast.mo)
        correction = Annotation.objects.get()
        assert (correction.verdict, correction.origin) == ("corrected", "moderation")
        assert correction.labels == {"risk": "none"}
        assert correction.judged_labels == AT_RISK
        case.document.refresh_from_db()
        assert case.document.answers == 1

    def test_correction_takes_the_place_of_the_moderators_own_answer(self, cast: Cast) -> None:
        case = setup_case()
        setup_annotation(cast.ada, document=case.document)
        case = claim(cast.ada)
        decide_case(case.pk, answer(case, "not_at_risk", risk="low"), by=cast.ada)
        assert list(Annotation.objects.filter(undone_at=None).values_list("origin", flat=True)) == ["moderation"]
        case.document.refresh_from_db()
        assert case.document.answers == 1

    @pytest.mark.parametrize(("outcome", "risk"), [("not_at_risk", ""), ("not_at_risk", "high"), ("confirmed", "none")])
    def test_rejects_a_risk_that_does_not_go_with_the_outcome(self, cast: Cast, outcome: str, risk: str) -> None:
        setup_case()
        case = claim(cast.mo)
        with pytest.raises(InvalidInput):
            decide_case(case.pk, answer(case, outcome, risk=risk), by=cast.mo)

    def test_rejects_a_case_that_is_not_there(self, cast: Cast) -> None:
        with pytest.raises(Missing):
            decide_case(0, CaseAnswer(uuid4(), 1, "", "confirmed"), by=cast.mo)


class TestRevealing:
    def test_each_look_is_recorded_without_the_text(self, cast: Cast) -> None:
        setup_case(text="a text that the log must not hold")
        case = claim(cast.mo)
        document = reveal(case.pk, token=case.claim_token, by=cast.mo)  # type: ignore[arg-type]
        assert document.text == "a text that the log must not hold"
        event = AuditEvent.objects.get(verb="reveal_case", actor=cast.mo)
        assert event.data == {"text_hash": document.text_hash}

    def test_denies_whoever_does_not_hold_the_case(self, cast: Cast) -> None:
        setup_case()
        case = claim(cast.mo)
        with pytest.raises(StaleClaim):
            reveal(case.pk, token=case.claim_token, by=cast.ada)  # type: ignore[arg-type]


def test_tick_marks_late_cases_once(cast: Cast) -> None:
    late, in_time = setup_case(), setup_case()
    RiskCase.objects.filter(pk=late.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    assert (tick(), tick()) == (1, 0)
    assert list(RiskCase.objects.filter(is_overdue=True)) == [late]
    assert in_time.is_overdue is False


@pytest.mark.django_db(transaction=True)
def test_eight_moderators_at_once_get_eight_cases() -> None:
    for _ in range(8):
        setup_case()
    people = [setup_person(f"moderator-{number}", "moderator") for number in range(8)]
    cases = run_together(*(lambda person=person: claim(person).pk for person in people))
    assert len(set(cases)) == 8


@pytest.mark.django_db(transaction=True)
def test_deciding_many_times_at_once_is_deciding_once() -> None:
    cast = setup_cast()
    setup_case()
    case = claim(cast.mo)
    given = answer(case, "not_at_risk", risk="none")
    assert len({str(result) for result in run_together(*[lambda: decide_case(case.pk, given, by=cast.mo).pk] * 4)}) == 1
    assert (CaseDecision.objects.count(), Annotation.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_opening_many_times_at_once_is_opening_once() -> None:
    prediction = setup_document(labels=AT_RISK, case=False).prediction
    assert prediction is not None
    cases = run_together(*[lambda: moderation.open_case(prediction)] * 4)
    assert cases == [RiskCase.objects.get()] * 4
