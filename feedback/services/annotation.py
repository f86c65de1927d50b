"""Handing out texts to annotators, and keeping what they say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from feedback.errors import AnswerConflict, InvalidInput, Missing, UndoRefused
from feedback.models import Annotation, Assignment, Document, Person, Prediction, RiskCase
from feedback.models.labels import SCHEMA
from feedback.services import audit, moderation

UNDO_DEPTH = 20
UNDOABLE = (Annotation.Origin.WEB, Annotation.Origin.API)

# One statement: pick, lock and lease. The picked row's lock cannot show a lease that another claim committed a moment
# ago (that is a row of another table), so it is the unique (document, slot) that decides: the loser of a race gets
# nothing for that document. Every claim picks the lowest slot without a live lease, hence both want the same one.
CLAIM = """
WITH picked AS (
  SELECT document.id, free.slot
  FROM feedback_document AS document
  CROSS JOIN LATERAL (
    SELECT series.n AS slot FROM generate_series(0, document.answers_wanted - 1) AS series(n)
    WHERE NOT EXISTS (
      SELECT FROM feedback_assignment AS lease
      WHERE lease.document_id = document.id AND lease.slot = series.n AND lease.expires_at > statement_timestamp())
    ORDER BY series.n LIMIT 1
  ) AS free
  WHERE document.state = 'scored' AND document.answers < document.answers_wanted
    AND (%(only)s::bigint IS NULL OR document.id = %(only)s)
    AND document.answers < document.answers_wanted - (
      SELECT count(*) FROM feedback_assignment AS lease
      WHERE lease.document_id = document.id AND lease.expires_at > statement_timestamp())
    AND NOT EXISTS (
      SELECT FROM feedback_annotation AS annotation
      WHERE annotation.document_id = document.id AND annotation.person_id = %(person)s
        AND annotation.undone_at IS NULL)
    AND NOT EXISTS (
      SELECT FROM feedback_assignment AS mine
      WHERE mine.document_id = document.id AND mine.person_id = %(person)s AND mine.slot <> free.slot)
  ORDER BY document.priority DESC, document.id
  LIMIT %(count)s
  FOR UPDATE OF document SKIP LOCKED
), leased AS (
  INSERT INTO feedback_assignment AS lease (document_id, person_id, slot, claimed_at, expires_at)
  SELECT id, %(person)s, slot, statement_timestamp(), statement_timestamp() + make_interval(secs => %(lease_s)s)
  FROM picked
  ON CONFLICT (document_id, slot) DO UPDATE
    SET person_id = excluded.person_id, claimed_at = excluded.claimed_at, expires_at = excluded.expires_at
    WHERE lease.expires_at <= statement_timestamp()
  RETURNING document_id
)
SELECT (SELECT count(*) FROM picked), ARRAY(SELECT document_id FROM leased)
"""


@dataclass(frozen=True, slots=True)
class Submission:
    """One answer. The same `idempotency_key` sent again is the same answer."""

    document_id: int
    verdict: str
    idempotency_key: UUID
    labels: Mapping[str, str] = field(default_factory=dict)
    """For `corrected`: the right labels; those that are not named are right as they were judged."""
    prediction_id: int | None = None
    """The prediction that was shown; the newest one when None."""
    comment: str = ""
    active_ms: int | None = None
    was_blind: bool = False
    origin: str = Annotation.Origin.WEB


def claim_documents(person: Person, *, count: int) -> list[Document]:
    """Lease up to `count` more documents to the person, the most urgent first."""
    for _ in range(3):
        picked, ids = _claim(person, count=count)
        # Picked but lost to claims of the same instant: the queue is not empty, look again.
        if ids or not picked:
            break
    documents = Document.objects.filter(pk__in=ids).select_related("prediction__release")
    return list(documents.order_by("-priority", "id"))


def _claim(person: Person, *, count: int, only: int | None = None) -> tuple[int, list[int]]:
    params = {"person": person.pk, "count": count, "lease_s": settings.ASSIGNMENT_LEASE_S, "only": only}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, params)
        picked, ids = cursor.fetchone()
    return picked, ids


def renew_claims(person: Person) -> int:
    """Hold on to what is in hand. An expired lease is not revived: somebody else may have the text by now."""
    now = timezone.now()
    expires_at = now + timedelta(seconds=settings.ASSIGNMENT_LEASE_S)
    return Assignment.objects.filter(person=person, expires_at__gt=now).update(expires_at=expires_at)


def release_claims(person: Person, *, document_ids: Sequence[int] | None = None) -> int:
    """Put back what is in hand, all of it when no ids are given."""
    held = Assignment.objects.filter(person=person)
    if document_ids is not None:
        held = held.filter(document_id__in=document_ids)
    return held.delete()[0]


def drop_expired_claims() -> int:
    return Assignment.objects.filter(expires_at__lte=timezone.now()).delete()[0]


@transaction.atomic
def submit_annotation(submission: Submission, *, by: Person) -> Annotation:
    """Keep the answer. Raises AnswerConflict when the text has its answers; a lapsed lease alone is no obstacle."""
    document = _lock_document(submission.document_id)
    # Looked up under the document's lock: a double click's second request waits above and finds the first one's row.
    known = Annotation.objects.filter(idempotency_key=submission.idempotency_key).first()
    if known is not None:
        if (known.person_id, known.document_id) != (by.pk, document.pk):
            raise AnswerConflict("this idempotency_key belongs to another answer: make a new one for each answer")
        return known
    _refuse_conflict(document, submission, by)
    annotation = make_annotation(document, submission, by=by)
    annotation.save(force_insert=True)
    count_answer(document, annotation, 1)
    Assignment.objects.filter(document=document, person=by).delete()
    data = {"document": document.pk, "text_hash": document.text_hash, "verdict": annotation.verdict}
    audit.record("annotate", annotation, by=by, data=data | {"labels": annotation.labels})
    return annotation


def _lock_document(pk: int) -> Document:
    document = Document.objects.select_for_update().filter(pk=pk).first()
    if document is None:
        raise Missing(f"there is no document {pk}")
    return document


def _refuse_conflict(document: Document, submission: Submission, by: Person) -> None:
    standing = document.annotations.filter(person=by, undone_at=None).exclude(origin=Annotation.Origin.IMPORT)
    if standing.exists():
        raise AnswerConflict("you have answered this text already: undo that answer first")
    if submission.verdict in Annotation.ANSWERS and document.answers >= document.answers_wanted:
        raise AnswerConflict("somebody else has answered this text in the meantime: your answer was not kept")


def make_annotation(document: Document, submission: Submission, *, by: Person) -> Annotation:
    """Unsaved. Raises InvalidInput or SchemaError for a verdict and labels that do not go together."""
    prediction = _judged_prediction(document, submission)
    judged = prediction.labels if prediction else {}
    verdict, labels = judge(submission, judged)
    return Annotation(
        document=document,
        person=by,
        prediction=prediction,
        verdict=verdict,
        judged_labels=judged,
        **labels,
        comment=submission.comment,
        origin=submission.origin,
        idempotency_key=submission.idempotency_key,
        guideline_version=SCHEMA.version,
        active_ms=submission.active_ms,
        was_blind=submission.was_blind,
    )


def _judged_prediction(document: Document, submission: Submission) -> Prediction | None:
    wanted = submission.prediction_id or document.prediction_id
    if wanted is None:
        return None
    prediction = document.predictions.filter(pk=wanted).first()
    if prediction is None:
        raise InvalidInput(f"prediction {wanted} is not one of document {document.pk}")
    return prediction


def judge(submission: Submission, judged: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The verdict and the labels that the person holds to be right."""
    verdict = submission.verdict
    if verdict not in Annotation.Verdict.values:
        raise InvalidInput(f"verdict must be one of {', '.join(Annotation.Verdict.values)}")
    if verdict != Annotation.Verdict.CORRECTED:
        if submission.labels:
            raise InvalidInput(f"labels go with the verdict corrected, not with {verdict}")
        if verdict == Annotation.Verdict.CORRECT and not judged:
            raise InvalidInput("there is no prediction to agree with: answer corrected, with all labels")
        return verdict, dict(judged) if verdict == Annotation.Verdict.CORRECT else {}
    if not submission.labels:
        raise InvalidInput("the verdict corrected needs labels")
    labels = SCHEMA.check_labels({**judged, **submission.labels})
    if labels != judged:
        return verdict, labels
    if not submission.was_blind:
        raise InvalidInput("the corrected labels are those of the prediction: answer correct")
    # Whoever could not see the prediction cannot say that it is correct, only what is right.
    return Annotation.Verdict.CORRECT, labels


def count_answer(document: Document, annotation: Annotation, step: int) -> None:
    """Keep the document's count of answers. The caller holds the document's lock."""
    if annotation.verdict in Annotation.ANSWERS:
        document.answers += step
        document.save(update_fields=["answers"])


@transaction.atomic
def undo_annotation(annotation: Annotation, *, by: Person) -> Document:
    """Take back one's own answer, one of the newest 20, and get the text back in hand where it is free.

    Undoing twice is undoing once.
    """
    document = _lock_document(annotation.document_id)
    annotation = Annotation.objects.get(pk=annotation.pk)
    if annotation.undone_at is None:
        _refuse_undo(annotation, by)
        annotation.undone_at = timezone.now()
        annotation.save(update_fields=["undone_at"])
        count_answer(document, annotation, -1)
        _claim(by, count=1, only=document.pk)
        audit.record("undo_annotation", annotation, by=by, data={"document": document.pk})
    return Document.objects.select_related("prediction__release").get(pk=document.pk)


def _refuse_undo(annotation: Annotation, by: Person) -> None:
    if annotation.person_id != by.pk:
        raise UndoRefused("only the person who gave an answer can undo it")
    if annotation.origin not in UNDOABLE:
        raise UndoRefused("an imported answer or a moderator's correction cannot be undone here")
    newer = Annotation.objects.filter(person=by, undone_at=None, origin__in=UNDOABLE, pk__gt=annotation.pk)
    if newer.count() >= UNDO_DEPTH:
        raise UndoRefused(f"only the newest {UNDO_DEPTH} answers can be undone")


@transaction.atomic
def flag_document(document: Document, *, by: Person, note: str = "") -> RiskCase:
    """Hand a text to the moderators. A case that was decided opens again; one that is open gets the note."""
    case = moderation.open_flagged_case(_lock_document(document.pk), note=note)
    audit.record("flag", case, by=by, data={"document": document.pk, "text_hash": document.text_hash})
    return case
