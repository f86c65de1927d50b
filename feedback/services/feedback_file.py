"""Answers out and in: feedback files `[{"text", "correct_labels", "incorrect_labels", "feedback"}]`, full records."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils.crypto import salted_hmac

from feedback import ml, tasks
from feedback.errors import InvalidInput
from feedback.models import Annotation, Document, IntakeBatch, Person, Prediction, hash_text
from feedback.models.labels import SCHEMA
from feedback.services import audit
from feedback.services.intake import (
    IntakeProblem,
    IntakeRow,
    check_object,
    finish_batch,
    insert_documents,
    load_json,
    split_rows,
)

IMPORTED = UUID("2f1d9c1e-6a0f-4d0a-9d5e-6f1f3c7f4b10")
"""Namespace of the keys of imported answers: the same file imported twice is imported once."""

MAX_LABEL_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    row: int
    text: str
    verdict: str
    labels: Mapping[str, str]
    judged: Mapping[str, str]
    comment: str

    def key(self, occurrence: int) -> UUID:
        """Two people who said the same in one file are two answers."""
        content = [self.text, self.verdict, dict(self.labels), dict(self.judged), self.comment, occurrence]
        return uuid5(IMPORTED, json.dumps(content))


def import_feedback(data: bytes, *, by: Person, name: str = "") -> IntakeBatch:
    """Keep the file's answers, and its texts where they are new. One bad row never loses the good ones.

    The batch counts answers: accepted, known from an earlier import, refused.
    """
    rows, problems = split_rows(_parse(data))
    with transaction.atomic():
        batch = IntakeBatch.objects.create(kind=IntakeBatch.Kind.FEEDBACK, name=name[:200], created_by=by)
        new_ids = insert_documents(batch, (IntakeRow(row.row, row.text) for row in rows))
        accepted = _insert_answers(rows, by)
        finish_batch(batch, accepted=accepted, known=len(rows) - accepted, problems=problems)
        audit.record("import_feedback", batch, by=by, data={"accepted": accepted, "refused": len(problems)})
        tasks.score_on_commit(new_ids)
    return batch


def _parse(data: bytes) -> Iterator[FeedbackRow | IntakeProblem]:
    """A JSON list; or one object a line, of which a broken line loses only itself."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if data.lstrip()[:1] != b"[":
        for row, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                yield _check(row, load_json(row, line))
        return
    values = load_json(1, data)
    if isinstance(values, IntakeProblem):
        raise InvalidInput(f"the file is not a JSON list: {values.reason}")
    for row, value in enumerate(values, start=1):
        yield _check(row, value)


def _check(row: int, value: Any) -> FeedbackRow | IntakeProblem:
    if isinstance(value, IntakeProblem):
        return value
    text = check_object(row, value)
    if isinstance(text, IntakeProblem):
        return text
    comment = value.get("feedback") or ""
    if not isinstance(comment, str) or "\x00" in comment:
        return IntakeProblem(row, "feedback", "the feedback must be a string without NUL characters")
    found: dict[str, dict[str, str]] = {}
    for field in ("correct_labels", "incorrect_labels"):
        try:
            found[field] = _read_labels(value.get(field))
        except ml.SchemaError as error:
            return IntakeProblem(row, field, str(error))
    return _judge(row, text.text, found["correct_labels"], found["incorrect_labels"], comment)


def _read_labels(value: Any) -> dict[str, str]:
    """From a label line or an object; empty when absent. Raises SchemaError."""
    if value is None or value == "":
        return {}
    if isinstance(value, dict):
        return SCHEMA.check_labels(value, partial=True)
    if not isinstance(value, str) or len(value) > MAX_LABEL_CHARACTERS:
        raise ml.SchemaError("expected a line such as 'emotion: positive, risk: none', or an object")
    return SCHEMA.parse_line(value)


def _judge(
    row: int, text: str, correct: dict[str, str], incorrect: dict[str, str], comment: str
) -> FeedbackRow | IntakeProblem:
    if correct and correct == incorrect:
        return IntakeProblem(row, "incorrect_labels", "the same as correct_labels: one of the two must differ")
    if correct and incorrect:
        return FeedbackRow(row, text, Annotation.Verdict.CORRECTED, correct, incorrect, comment)
    if correct:
        return FeedbackRow(row, text, Annotation.Verdict.CORRECT, correct, correct, comment)
    if incorrect:
        return FeedbackRow(row, text, Annotation.Verdict.INCORRECT, {}, incorrect, comment)
    return IntakeProblem(row, "correct_labels", "give correct_labels, incorrect_labels, or both")


def _insert_answers(rows: list[FeedbackRow], by: Person) -> int:
    """How many were new. Locks the documents in the order of their ids, as every writer does."""
    hashes = [hash_text(row.text) for row in rows]
    locked = Document.objects.select_for_update().filter(text_hash__in=hashes).order_by("pk")
    document_ids = dict(locked.values_list("text_hash", "pk"))
    seen: Counter[UUID] = Counter()
    answers: dict[UUID, Annotation] = {}
    for row, text_hash in zip(rows, hashes, strict=True):
        base = row.key(0)
        answers[row.key(seen[base])] = _answer(row, document_ids[text_hash], by, row.key(seen[base]))
        seen[base] += 1
    known = Annotation.objects.filter(idempotency_key__in=answers).values_list("idempotency_key", flat=True)
    for key in known:
        del answers[key]
    Annotation.objects.bulk_create(answers.values(), batch_size=1000)
    _recount(list(document_ids.values()))
    return len(answers)


def _answer(row: FeedbackRow, document_id: int, by: Person, key: UUID) -> Annotation:
    return Annotation(
        document_id=document_id,
        person=by,
        verdict=row.verdict,
        judged_labels=row.judged,
        **row.labels,
        comment=row.comment,
        origin=Annotation.Origin.IMPORT,
        idempotency_key=key,
        guideline_version=SCHEMA.version,
    )


def _recount(document_ids: list[int]) -> None:
    standing = Annotation.objects.filter(document=OuterRef("pk"), undone_at=None, verdict__in=Annotation.ANSWERS)
    count = standing.order_by().values("document").annotate(n=Count("pk")).values("n")
    Document.objects.filter(pk__in=document_ids).update(answers=Coalesce(Subquery(count), 0))


def pseudonym(annotation: Annotation) -> str:
    """Stable for a person, unlike their name. Every imported answer counts as one person's: whose it was is unknown."""
    if annotation.origin == Annotation.Origin.IMPORT:
        return f"import-{annotation.idempotency_key.hex[:12]}"
    return salted_hmac("feedback.annotator", str(annotation.person_id)).hexdigest()[:12]


def standing_annotations() -> QuerySet[Annotation]:
    return Annotation.objects.filter(undone_at=None).select_related("document", "prediction__release").order_by("pk")


def iter_feedback_file() -> Iterator[bytes]:
    """The feedback file, a row at a time: every standing answer that says something about the labels."""
    separator = b"[\n"
    for annotation in standing_annotations().filter(verdict__in=Annotation.ANSWERS).iterator(chunk_size=500):
        yield separator + _dump(_file_row(annotation))
        separator = b",\n"
    yield b"\n]\n" if separator == b",\n" else b"[]\n"


def _file_row(annotation: Annotation) -> dict[str, str | None]:
    correct = annotation.labels if annotation.verdict != Annotation.Verdict.INCORRECT else {}
    incorrect = annotation.judged_labels if annotation.verdict != Annotation.Verdict.CORRECT else {}
    return {
        "text": annotation.document.text,
        "correct_labels": SCHEMA.line(correct) or None,
        "incorrect_labels": SCHEMA.line(incorrect) or None,
        "feedback": annotation.comment or None,
    }


def iter_records_jsonl() -> Iterator[bytes]:
    """Every standing annotation, unsure and skipped ones too, one full record a line."""
    for annotation in standing_annotations().iterator(chunk_size=500):
        yield _dump(_record(annotation)) + b"\n"


def _record(annotation: Annotation) -> dict[str, Any]:
    document, prediction = annotation.document, annotation.prediction
    return {
        "document": document.pk,
        "external_id": document.external_id or None,
        "text": document.text,
        "verdict": annotation.verdict,
        "judged_labels": annotation.judged_labels,
        "labels": annotation.labels,
        "votes": _votes(prediction) if prediction else {},
        "release": prediction.release.name if prediction else None,
        "guideline_version": annotation.guideline_version,
        "was_blind": annotation.was_blind,
        "active_ms": annotation.active_ms,
        "created_at": annotation.created_at.isoformat(),
        "annotator": pseudonym(annotation),
        "origin": annotation.origin,
        "feedback": annotation.comment or None,
    }


def _votes(prediction: Prediction) -> dict[str, Any]:
    """What each arm and the rules said by themselves."""
    votes: dict[str, Any] = {
        arm["arm"]: {name: max(row, key=row.__getitem__) for name, row in arm["probabilities"].items()}
        for arm in prediction.arms
    }
    votes["rules"] = {"risk_floor": prediction.risk_floor or None, "evidence": prediction.evidence}
    return votes


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
