"""The classifier's answers become rows: predictions, places in the annotation queue, and risk cases.

Priority is three numbers in one, each more important than all that follow:
`441 * round(20 * P(risk >= medium)) + 21 * round(20 * uncertainty) + 20 * disagreement`, where uncertainty is
1 - the highest probability and disagreement the total variation distance of the two arms, both averaged over the
dimensions. The first two go in 21 steps each, so that a difference too small to mean anything does not decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from django.db import transaction

from feedback import ml
from feedback.models import Document, Prediction
from feedback.models.labels import SCHEMA
from feedback.services import moderation

CHUNK = 64
"""Texts in one request: a few batches of the inference server, so that a long queue holds up nobody else's text."""

STEPS = 20

Probabilities = Mapping[str, Mapping[str, float]]


def score_documents(ids: Sequence[int]) -> int:
    """Ask the classifier and keep what it says. Returns how many were answered.

    Raises InferenceUnavailable; what was answered before stays, the rest stays as it was.
    """
    answered = 0
    for start in range(0, len(ids), CHUNK):
        documents = list(Document.objects.filter(pk__in=ids[start : start + CHUNK]).order_by("pk"))
        decisions = ml.decide([document.text for document in documents])
        keep_decisions(documents, decisions)
        answered += len(documents)
    return answered


@transaction.atomic
def keep_decisions(documents: Sequence[Document], decisions: Sequence[ml.Decision]) -> None:
    """Store one prediction per (document, release); a second worker with the same answer changes nothing."""
    if not documents:
        return
    release = _release_of(decisions)
    pairs = zip(documents, decisions, strict=True)
    rows = [make_prediction(document, decision, release) for document, decision in pairs]
    Prediction.objects.bulk_create(rows, ignore_conflicts=True)
    # Locked in the order of their ids, as every writer does. Another worker may have stored a newer release's answer.
    locked = Document.objects.select_for_update(of=("self",)).filter(pk__in=[document.pk for document in documents])
    current = {document.pk: document for document in locked.select_related("prediction").order_by("pk")}
    newest: list[Prediction] = []
    for prediction in Prediction.objects.filter(release=release, document__in=current).order_by("document_id"):
        document = current[prediction.document_id]
        if document.prediction is None or document.prediction.release_id <= release.pk:
            place_document(document, prediction)
            newest.append(prediction)
    Document.objects.bulk_update([current[row.document_id] for row in newest], ["prediction", "state", "priority"])
    moderation.open_cases(newest)


def _release_of(decisions: Sequence[ml.Decision]) -> ml.Release:
    """The one release that made them. Raises InferenceUnavailable while this database does not know it."""
    names = {decision.release for decision in decisions}
    release = ml.list_releases().filter(name__in=names).first() if len(names) == 1 else None
    if release is None:
        raise ml.InferenceUnavailable(
            f"the inference server answers with release {', '.join(sorted(names))}, which is not in the release history"
        )
    return release


def make_prediction(document: Document, decision: ml.Decision, release: ml.Release) -> Prediction:
    """Unsaved."""
    whole = decision.as_dict()
    return Prediction(
        document=document,
        release=release,
        **whole["labels"],
        probabilities=whole["probabilities"],
        arms=whole["arms"],
        evidence=whole["evidence"],
        risk_floor=whole["risk_floor"] or "",
        latency_ms=whole["latency_ms"],
        unscored_reason=(whole["unscored"] or "")[:64],
    )


def place_document(document: Document, prediction: Prediction) -> None:
    document.prediction = prediction
    document.state = Document.State.UNSCORABLE if prediction.unscored_reason else Document.State.SCORED
    document.priority = priority_of(prediction)


def priority_of(prediction: Prediction) -> float:
    """Place in the queue, highest first; 0 for a text that could not be scored."""
    if not prediction.probabilities:
        return 0.0
    risk = round(STEPS * prediction.risk_probability())
    uncertainty = round(STEPS * fmean(1 - max(row.values()) for row in prediction.probabilities.values()))
    return (STEPS + 1) ** 2 * risk + (STEPS + 1) * uncertainty + STEPS * disagreement_of(prediction.arms)


def disagreement_of(arms: Sequence[Mapping[str, Probabilities]]) -> float:
    """Total variation distance of the two arms averaged over the dimensions; 0 where one alone was asked."""
    if len(arms) < 2:
        return 0.0
    first, second = arms[0]["probabilities"], arms[1]["probabilities"]
    return fmean(
        sum(abs(first[name][value] - second[name][value]) for value in SCHEMA[name].names) / 2 for name in SCHEMA.names
    )
