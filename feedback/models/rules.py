"""Rules on their way to a release: drafts, and what trying one out has shown."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from feedback.models.documents import Document


class RuleDraft(models.Model):
    """Rules files in the making. What is saved stays, valid or not; only a valid draft is tried out and published."""

    class State(models.TextChoices):
        DRAFT = "draft"
        SUBMITTED = "submitted", "being released"
        PUBLISHED = "published"
        DISCARDED = "discarded"

    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="rule_drafts")
    base = models.ForeignKey("training.Release", on_delete=models.PROTECT, related_name="+")
    base_version = models.CharField(max_length=12, help_text="hash of the rules it was made from")
    files = models.JSONField(default=dict, help_text="file name -> TOML text")
    note = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.DRAFT)
    version = models.PositiveIntegerField(default=1, help_text="goes up with every save; a save names the one it saw")
    problems = models.JSONField(default=list, help_text='what is wrong: [{"file", "rule", "line", "sentence"}]')
    run = models.OneToOneField("training.TrainingRun", null=True, on_delete=models.PROTECT, related_name="+")
    submitted_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    refusal = models.TextField(blank=True, help_text="why its last run made no release")
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    @property
    def is_open(self) -> bool:
        return self.state == self.State.DRAFT

    @property
    def is_valid(self) -> bool:
        return not self.problems


class RuleTryout(models.Model):
    """One comparison of a draft with the rules that serve, on stored texts and on a functional suite."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    LOST_AFTER = timedelta(minutes=5)

    draft = models.ForeignKey(RuleDraft, on_delete=models.CASCADE, related_name="tryouts")
    draft_version = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    wanted = models.PositiveIntegerField(help_text="so many of the newest documents")
    suite_name = models.CharField(max_length=200, blank=True)
    suite = models.JSONField(default=list, help_text='cases: [{"id", "functionality", "text", "labels", "must"}]')
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict, help_text="what changed, by kind; see services/rule_tryouts.py")
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    touched_at = models.DateTimeField(default=timezone.now)

    @property
    def is_live(self) -> bool:
        """Whether a worker has it, or one will; one that is silent for too long is given up."""
        is_open = self.state in (self.State.QUEUED, self.State.RUNNING)
        return is_open and timezone.now() - self.touched_at < self.LOST_AFTER


class RuleChange(models.Model):
    """A text of which the draft makes something else. A suite case brings its own text."""

    tryout = models.ForeignKey(RuleTryout, on_delete=models.CASCADE, related_name="changes")
    document = models.ForeignKey(Document, null=True, on_delete=models.CASCADE, related_name="+")
    case = models.JSONField(null=True, help_text="the suite case, where it is one")
    kinds = ArrayField(models.CharField(max_length=16))
    before = models.JSONField(help_text='{"floor", "evidence", "labels"}')
    after = models.JSONField()
    is_severe = models.BooleanField(help_text="its text is shown only when asked for")

    class Meta:
        indexes = [models.Index(fields=["tryout", "-id"], name="rule_change_page")]

    @property
    def text(self) -> str:
        return self.document.text if self.document else str((self.case or {})["text"])
