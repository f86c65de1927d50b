"""Risk items with their clock, and every decision taken on them."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

from feedback.models.documents import Document


class RiskCase(models.Model):
    """A document that a human must look after. One per document, however often it is scored again."""

    class Band(models.IntegerChoices):
        """Highest number first in the queue."""

        MEDIUM = 1, "medium"
        UNSCORED = 2, "unscored"
        HIGH = 3, "high"

    class Reason(models.TextChoices):
        MODEL = "model", "the classifier saw risk"
        FLAG = "flag", "an annotator flagged it"
        UNSCORED = "unscored", "it could not be scored"

    class Outcome(models.TextChoices):
        CONFIRMED = "confirmed", "at risk, escalated"
        NOT_AT_RISK = "not_at_risk", "not at risk"
        NEEDS_SUPERVISOR = "needs_supervisor", "needs a supervisor"

    TARGET = {Band.HIGH: timedelta(minutes=15), Band.UNSCORED: timedelta(minutes=60), Band.MEDIUM: timedelta(hours=4)}

    document = models.OneToOneField(Document, on_delete=models.CASCADE, related_name="case")
    band = models.PositiveSmallIntegerField(choices=Band.choices)
    reason = models.CharField(max_length=16, choices=Reason.choices)
    score = models.FloatField(default=0.0, help_text="P(risk >= medium) when it was opened; order within a band")
    opened_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField()
    is_overdue = models.BooleanField(default=False, help_text="set once by the tick, when the target passes undecided")
    note = models.TextField(blank=True, help_text="what the annotator who flagged it wrote")
    version = models.PositiveIntegerField(default=1, help_text="goes up whenever the case changes under its holder")
    claimed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="claimed_cases"
    )
    claim_token = models.UUIDField(null=True)
    claim_expires_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=20, choices=Outcome.choices, blank=True)
    decided_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["-band", "due_at", "-score"], name="case_queue", condition=models.Q(decided_at__isnull=True)
            )
        ]


class CaseDecision(models.Model):
    """One moderator's decision on a case; append-only. Reopening a case leaves the old ones standing."""

    case = models.ForeignKey(RiskCase, on_delete=models.CASCADE, related_name="decisions")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="case_decisions")
    outcome = models.CharField(max_length=20, choices=RiskCase.Outcome.choices)
    note = models.TextField(blank=True)
    claim_token = models.UUIDField(default=uuid.uuid4)
    case_version = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now)
