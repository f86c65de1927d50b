"""Texts, how they came in, and what the classifier said of them."""

from __future__ import annotations

import hashlib
import unicodedata

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.utils import timezone

from feedback.models.labels import SCHEMA, LabelColumns

MAX_TEXT_CHARACTERS = 20_000


def hash_text(text: str) -> str:
    """SHA-256 of the normalised text: equal for copies that differ in case, spacing, punctuation or invisible marks.

    Letters, vowel signs, digits and symbols (emoji) count; a text without any of them stands for itself.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(_keep(character) for character in folded).split()
    return hashlib.sha256((" ".join(words) or folded).encode(errors="surrogatepass")).hexdigest()


def _keep(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category[0] in "PZC" else character


class IntakeBatch(models.Model):
    """One act of bringing texts in. `problems` names every refused row: `{"row", "field", "reason"}`."""

    class Kind(models.TextChoices):
        PASTE = "paste"
        JSONL = "jsonl", "JSONL"
        CSV = "csv", "CSV"
        API = "api", "API"
        FEEDBACK = "feedback", "feedback file"
        DEMO = "demo"

    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    accepted = models.PositiveIntegerField(default=0)
    known = models.PositiveIntegerField(default=0)
    """Rows whose text was here already; they make no second document."""
    refused = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=list)


class Document(models.Model):
    """A text to be judged. `state` says whether the classifier has answered; the answer is `prediction`."""

    class State(models.TextChoices):
        UNSCORED = "unscored"
        SCORED = "scored"
        UNSCORABLE = "unscorable"

    text = models.TextField()
    text_hash = models.CharField(max_length=64, unique=True)
    external_id = models.CharField(max_length=200, blank=True, db_index=True)
    batch = models.ForeignKey(IntakeBatch, on_delete=models.PROTECT, related_name="documents")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.UNSCORED)
    prediction = models.ForeignKey(
        "Prediction", null=True, on_delete=models.PROTECT, related_name="+", help_text="the newest answer"
    )
    priority = models.FloatField(default=0.0, help_text="place in the annotation queue, highest first")
    answers_wanted = models.PositiveSmallIntegerField(default=1)
    answers = models.PositiveSmallIntegerField(default=0, help_text="annotations that stand (not undone, not skipped)")

    class Meta:
        indexes = [
            models.Index(
                fields=["-priority", "id"],
                name="document_queue",
                condition=models.Q(state="scored", answers__lt=models.F("answers_wanted")),
            ),
            models.Index(fields=["id"], name="document_unscored", condition=models.Q(state="unscored")),
            GinIndex(name="document_text_trgm", fields=["text"], opclasses=["gin_trgm_ops"]),
        ]


class Prediction(LabelColumns):
    """A stored Decision, immutable, with its release. An unscorable text has empty labels and an `unscored_reason`."""

    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="predictions")
    release = models.ForeignKey("training.Release", on_delete=models.PROTECT, related_name="+")
    probabilities = models.JSONField(default=dict)
    arms = models.JSONField(default=list)
    evidence = models.JSONField(default=list)
    risk_floor = models.CharField(max_length=16, blank=True)
    latency_ms = models.JSONField(default=dict)
    unscored_reason = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["document", "release"], name="one_prediction_per_release")]
        indexes = [models.Index(fields=["risk", "-id"], name="prediction_risk")]

    def is_at_risk(self) -> bool:
        """Whether a moderator must see it: risk medium or more, or no answer at all."""
        return not self.risk or SCHEMA.is_at_least("risk", self.risk, "medium")

    def risk_probability(self) -> float:
        """P(risk >= medium); 0 where there is no answer."""
        row = self.probabilities.get("risk", {})
        return float(sum(row[name] for name in row if SCHEMA.is_at_least("risk", name, "medium")))
