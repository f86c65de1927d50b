"""The append-only chain of what people did. A trigger refuses UPDATE and DELETE (see migration 0004)."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class AuditEvent(models.Model):
    """`hash` = SHA-256 over `previous_hash` and the canonical JSON of the event. Holds hashes of texts, never texts."""

    at = models.DateTimeField(default=timezone.now)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    verb = models.CharField(max_length=64)
    noun = models.CharField(max_length=64)
    noun_id = models.CharField(max_length=64)
    data = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        indexes = [models.Index(fields=["noun", "noun_id"], name="audit_noun")]
