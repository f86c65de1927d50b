"""Risk cases: opened by predictions and flags, handed out by the server, decided by whoever holds the claim."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Cast
from django.utils import timezone

from feedback.errors import InvalidInput, Missing, StaleClaim
from feedback.models import (
    Annotation,
    Assignment,
    AuditEvent,
    CaseDecision,
    Document,
    Person,
    Prediction,
    RiskCase,
    Role,
)
from feedback.models.labels import SCHEMA
from feedback.services import audit

Band = RiskCase.Band
Outcome = RiskCase.Outcome

SAFE_RISKS = ("none", "low")
"""What a moderator may say of a text that is not at risk."""


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """A decision, with the proof that it is about the case as it stands: token, version, and the text that was read."""

    token: UUID
    version: int
    text_hash: str
    outcome: str
    note: str = ""
    risk: str = ""
    """For `not_at_risk`: the right risk label, none or low. It becomes a correction that feeds training."""


def open_case(prediction: Prediction) -> RiskCase | None:
    """The document's case, opened or found; None for a prediction without risk."""
    open_cases([prediction])
    return RiskCase.objects.filter(document=prediction.document_id).first() if prediction.is_at_risk() else None


@transaction.atomic
def open_cases(predictions: Sequence[Prediction]) -> None:
    """Open what must be looked at. Idempotent: a document scored again keeps its case, which may only become more
    urgent while it is undecided; a decided case stays decided."""
    wanted = {prediction.document_id: prediction for prediction in predictions if prediction.is_at_risk()}
    if not wanted:
        return
    # Documents before cases, in every service: two orders would be a deadlock. It also makes us the only opener.
    list(Document.objects.select_for_update().filter(pk__in=wanted).order_by("pk").values_list("pk"))
    standing = {
        case.document_id: case
        for case in RiskCase.objects.select_for_update().filter(document__in=wanted).order_by("document_id")
    }
    fresh = [_case_for(prediction) for pk, prediction in sorted(wanted.items()) if pk not in standing]
    opened = RiskCase.objects.bulk_create(fresh)
    raised = [case for pk, case in standing.items() if case.decided_at is None and _raise_band(case, wanted[pk])]
    RiskCase.objects.bulk_update(raised, ["band", "score", "due_at"])
    audit.record_all(
        [audit.Act("open_case", case, {"document": case.document_id, "band": case.band}) for case in opened]
        + [audit.Act("raise_case", case, {"document": case.document_id, "band": case.band}) for case in raised],
        by=None,
    )


def band_of(prediction: Prediction | None) -> RiskCase.Band:
    if prediction is None or not prediction.risk:
        return Band.UNSCORED
    return Band.HIGH if prediction.risk == "high" else Band.MEDIUM


def _case_for(prediction: Prediction) -> RiskCase:
    band = band_of(prediction)
    reason = RiskCase.Reason.UNSCORED if band == Band.UNSCORED else RiskCase.Reason.MODEL
    return RiskCase(
        document_id=prediction.document_id,
        band=band,
        reason=reason,
        score=prediction.risk_probability(),
        due_at=timezone.now() + RiskCase.TARGET[band],
    )


def _raise_band(case: RiskCase, prediction: Prediction) -> bool:
    """Whether the prediction makes the case more urgent; then it is so, unsaved."""
    band = band_of(prediction)
    if band <= case.band:
        return False
    case.band = band
    case.score = prediction.risk_probability()
    case.due_at = min(case.due_at, timezone.now() + RiskCase.TARGET[band])
    return True


def open_flagged_case(document: Document, *, note: str) -> RiskCase:
    """For `annotation.flag_document`, which holds the document's lock and records the act."""
    band = Band.HIGH if document.prediction is not None and document.prediction.risk == "high" else Band.MEDIUM
    due_at = timezone.now() + RiskCase.TARGET[band]
    case, is_new = RiskCase.objects.select_for_update().get_or_create(
        document=document, defaults={"band": band, "reason": RiskCase.Reason.FLAG, "due_at": due_at, "note": note}
    )
    if is_new:
        return case
    case.note = "\n".join(filter(None, [case.note, note]))
    if case.decided_at is not None:
        _reopen(case, due_at)
    case.save()
    return case


def _reopen(case: RiskCase, due_at: datetime) -> None:
    """The old decisions stand; whoever still holds the old claim finds it stale."""
    case.reason = RiskCase.Reason.FLAG
    case.opened_at = timezone.now()
    case.due_at = due_at
    case.is_overdue = False
    case.outcome = ""
    case.decided_at = None
    case.version += 1
    _clear_claim(case)


def _clear_claim(case: RiskCase) -> None:
    case.claimed_by = None
    case.claim_token = None
    case.claim_expires_at = None


CLAIM_FIELDS = ["claimed_by", "claim_token", "claim_expires_at"]


@transaction.atomic
def claim_next(person: Person) -> RiskCase | None:
    """The case that the person holds already, else the next one by band, deadline and score; None when none waits.

    What waits for a supervisor goes to admins only. What the person handed back comes last.
    """
    now = timezone.now()
    waiting = RiskCase.objects.select_for_update(skip_locked=True, of=("self",)).filter(decided_at=None)
    case = waiting.filter(claimed_by=person, claim_expires_at__gt=now).first() or _next_of(waiting, person)
    if case is None:
        return None
    if case.claimed_by_id != person.pk or case.claim_token is None:
        case.claim_token = uuid.uuid4()
        case.claimed_by = person
    case.claim_expires_at = now + timedelta(seconds=settings.CASE_LEASE_S)
    case.save(update_fields=CLAIM_FIELDS)
    audit.record("claim_case", case, by=person, data={"version": case.version})
    return case


def _next_of(waiting: QuerySet[RiskCase], person: Person) -> RiskCase | None:
    handed_back = AuditEvent.objects.filter(
        actor=person, verb="hand_back_case", noun="riskcase", noun_id=Cast(OuterRef("pk"), CharField())
    )
    free = waiting.filter(Q(claim_token=None) | Q(claim_expires_at__lte=timezone.now()))
    if Role.ADMIN not in person.roles():
        free = free.exclude(outcome=Outcome.NEEDS_SUPERVISOR)
    ranked = free.alias(was_handed_back=Exists(handed_back))
    return ranked.order_by("was_handed_back", "-band", "due_at", "-score", "pk").first()


def _lock_held(case_id: int, token: UUID, by: Person) -> RiskCase:
    """The case, locked. Raises StaleClaim unless the token is the one that `by` holds.

    A lease that ran out is no obstacle as long as nobody else took the case.
    """
    case = RiskCase.objects.select_for_update().filter(pk=case_id).first()
    if case is None:
        raise Missing(f"there is no case {case_id}")
    if case.decided_at is not None:
        raise StaleClaim("this case has been decided: take the next one")
    if case.claim_token != token or case.claimed_by_id != by.pk:
        raise StaleClaim("this case is no longer in your hands: take the next one")
    return case


@transaction.atomic
def reveal(case_id: int, *, token: UUID, by: Person) -> Document:
    """The document with its text, for the case's holder. Each look is recorded."""
    case = _lock_held(case_id, token, by)
    document = Document.objects.select_related("prediction__release").get(pk=case.document_id)
    audit.record("reveal_case", case, by=by, data={"text_hash": document.text_hash})
    return document


@transaction.atomic
def decide_case(case_id: int, answer: CaseAnswer, *, by: Person) -> CaseDecision:
    """Keep the decision. Raises StaleClaim, having written nothing, when the case is not as its holder saw it.

    The same answer sent twice (a double click) is one decision.
    """
    _check_answer(answer)
    locked = Document.objects.select_for_update(of=("self",)).select_related("prediction")
    document = locked.filter(case=case_id).first()
    if document is None:
        raise Missing(f"there is no case {case_id}")
    sent_before = CaseDecision.objects.filter(case=case_id, claim_token=answer.token, person=by).first()
    if sent_before is not None and sent_before.outcome == answer.outcome:
        return sent_before
    case = _lock_held(case_id, answer.token, by)
    if case.version != answer.version or document.text_hash != answer.text_hash:
        raise StaleClaim("this case has changed since you saw it: look at it again")
    decision = CaseDecision.objects.create(
        case=case,
        person=by,
        outcome=answer.outcome,
        note=answer.note,
        claim_token=answer.token,
        case_version=case.version,
    )
    _settle(case, answer.outcome)
    if answer.outcome == Outcome.NOT_AT_RISK:
        _correct_prediction(document, answer, by)
    data = {"outcome": answer.outcome, "version": answer.version, "text_hash": answer.text_hash}
    audit.record("decide_case", case, by=by, data=data)
    return decision


def _check_answer(answer: CaseAnswer) -> None:
    if answer.outcome not in Outcome.values:
        raise InvalidInput(f"outcome must be one of {', '.join(Outcome.values)}")
    if answer.outcome == Outcome.NOT_AT_RISK and answer.risk not in SAFE_RISKS:
        raise InvalidInput("not_at_risk needs the right risk label: none or low")
    if answer.outcome != Outcome.NOT_AT_RISK and answer.risk:
        raise InvalidInput(f"a risk label goes with not_at_risk, not with {answer.outcome}")


def _settle(case: RiskCase, outcome: str) -> None:
    """A case that needs a supervisor stays open, for admins."""
    case.outcome = outcome
    case.decided_at = None if outcome == Outcome.NEEDS_SUPERVISOR else timezone.now()
    case.version += 1
    _clear_claim(case)
    case.save(update_fields=["outcome", "decided_at", "version", *CLAIM_FIELDS])


def _correct_prediction(document: Document, answer: CaseAnswer, by: Person) -> None:
    """The moderator judged the risk alone: the other labels stay unknown. Takes the place of their earlier answer."""
    now = timezone.now()
    earlier = document.annotations.filter(person=by, undone_at=None).exclude(origin=Annotation.Origin.IMPORT)
    replaced = earlier.filter(verdict__in=Annotation.ANSWERS).count()
    earlier.update(undone_at=now)
    prediction = document.prediction
    judged = prediction.labels if prediction else {}
    was_right = judged.get("risk") == answer.risk
    Annotation.objects.create(
        document=document,
        person=by,
        prediction=prediction,
        verdict=Annotation.Verdict.CORRECT if was_right else Annotation.Verdict.CORRECTED,
        judged_labels=judged,
        risk=answer.risk,
        comment=answer.note,
        origin=Annotation.Origin.MODERATION,
        idempotency_key=answer.token,
        guideline_version=SCHEMA.version,
    )
    document.answers += 1 - replaced
    document.save(update_fields=["answers"])
    Assignment.objects.filter(document=document, person=by).delete()


@transaction.atomic
def hand_back(case_id: int, *, token: UUID, by: Person) -> None:
    """Put the case back in the queue; no reason is asked for."""
    case = _lock_held(case_id, token, by)
    _clear_claim(case)
    case.save(update_fields=CLAIM_FIELDS)
    audit.record("hand_back_case", case, by=by)


@transaction.atomic
def tick() -> int:
    """Mark the cases whose target has passed undecided. Returns how many were new; running it again finds none."""
    late = RiskCase.objects.filter(decided_at=None, is_overdue=False, due_at__lt=timezone.now())
    cases = list(late.select_for_update(skip_locked=True).order_by("pk"))
    for case in cases:
        case.is_overdue = True
    RiskCase.objects.bulk_update(cases, ["is_overdue"])
    audit.record_all([audit.Act("overdue_case", case, {"band": case.band}) for case in cases], by=None)
    return len(cases)
