"""Leases on documents, and what people say of them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from feedback.models.documents import Document, Prediction
from feedback.models.labels import LabelColumns


class Assignment(models.Model):
    """A lease: the person has the document in hand until `expires_at`. Deleted when answered or released.

    A document that wants n answers has the slots 0 to n-1; one lease per slot makes double work impossible, whatever
    two claims see of each other. An expired lease keeps its slot until the next claim takes it over.
    """

    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="assignments")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="assignments")
    claimed_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)
    slot = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["document", "person"], name="one_lease_per_person_and_document"),
            models.UniqueConstraint(fields=["document", "slot"], name="one_lease_per_slot"),
        ]


class Annotation(LabelColumns):
    """A person's verdict on a prediction. The label columns hold the labels that the person says are right."""

    class Verdict(models.TextChoices):
        CORRECT = "correct"
        CORRECTED = "corrected", "incorrect, corrected"
        INCORRECT = "incorrect", "incorrect, no correction"
        UNSURE = "unsure"
        SKIP = "skip"

    class Origin(models.TextChoices):
        WEB = "web"
        API = "api", "API"
        IMPORT = "import"
        MODERATION = "moderation"

    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="annotations")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="annotations")
    prediction = models.ForeignKey(Prediction, null=True, on_delete=models.PROTECT, related_name="annotations")
    verdict = models.CharField(max_length=16, choices=Verdict.choices)
    judged_labels = models.JSONField(default=dict, help_text="the labels that were judged; an import brings its own")
    comment = models.TextField(blank=True)
    origin = models.CharField(max_length=16, choices=Origin.choices, default=Origin.WEB)
    idempotency_key = models.UUIDField(unique=True)
    guideline_version = models.CharField(max_length=16, default="1")
    active_ms = models.PositiveIntegerField(null=True)
    was_blind = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    undone_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["document", "person"],
                # A feedback file may hold several people's answers to one text, all imported by one person.
                condition=models.Q(undone_at__isnull=True) & ~models.Q(origin="import"),
                name="one_standing_annotation_per_person",
            )
        ]

    ANSWERS = (Verdict.CORRECT, Verdict.CORRECTED, Verdict.INCORRECT)
    """Verdicts that count as an answer; unsure and skip leave the document in the queue for others."""
