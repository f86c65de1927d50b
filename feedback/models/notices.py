"""What a person is told inside Heed: that a run they launched has ended."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class Notice(models.Model):
    """One for each person and run, so that telling twice is impossible. Holds names and states, never a text."""

    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notices")
    run = models.ForeignKey("training.TrainingRun", on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(null=True)
    mailed_at = models.DateTimeField(null=True, help_text="when a mail was handed over; also set where it failed")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["person", "run"], name="one_notice_for_a_run")]
