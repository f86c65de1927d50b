"""What training works on and what it makes: snapshots, runs, model versions, releases."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils import timezone


class DatasetSnapshot(models.Model):
    """An immutable set of rows on disk, known by its hash: `<uri>/train.jsonl`, `manifest.json` (`corpus.snapshot`)."""

    content_hash = models.CharField(max_length=64, unique=True)
    uri = models.CharField(max_length=500)
    manifest = models.JSONField(default=dict)
    rows = models.PositiveIntegerField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)


class TrainingRun(models.Model):
    """One launch of a job. The row, not the broker, says who may work on it: see training/supervisor.py."""

    class Kind(models.TextChoices):
        BERT = "bert", "BERT arm"
        SFT = "sft", "LLM arm (SFT)"
        REWARD = "reward", "reward model"
        PPO = "ppo", "LLM arm (PPO)"
        LABEL_PPO = "label_ppo", "label PPO"
        KTO = "kto", "LLM arm (KTO)"
        RULES = "rules", "Rules"

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    kind = models.CharField(max_length=16, choices=Kind.choices)
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    config = models.JSONField(default=dict)
    snapshot = models.ForeignKey(DatasetSnapshot, on_delete=models.PROTECT, related_name="runs")
    publishes = models.BooleanField(default=True, help_text="build a release and serve it when every gate passes")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    stage = models.CharField(max_length=32, default="queued")
    progress = models.FloatField(default=0.0, help_text="0 to 1")
    eta_s = models.FloatField(null=True)
    metrics = models.JSONField(default=dict)
    series = models.JSONField(default=list, help_text='loss and metric points: [{"step", "name", "value"}]')
    error = models.TextField(blank=True, help_text="what went wrong and what would help")
    log_tail = models.TextField(blank=True, help_text="the job's last lines")

    @property
    def run_dir(self) -> Path:
        return Path(settings.RUNS_DIR) / f"run-{self.pk}"

    @property
    def is_ended(self) -> bool:
        return self.state in self.ENDED


class ModelVersion(models.Model):
    """The weights of one arm that a run made, or the rules."""

    class Arm(models.TextChoices):
        BERT = "bert", "BERT"
        LLM = "llm", "LLM"
        RULES = "rules", "rules"

    arm = models.CharField(max_length=8, choices=Arm.choices)
    run = models.OneToOneField(TrainingRun, null=True, on_delete=models.PROTECT, related_name="version")
    uri = models.CharField(max_length=500)
    content_hash = models.CharField(max_length=64)
    metrics = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)


class Release(models.Model):
    """One entry of the append-only serving history. The newest row serves; a roll back appends a row."""

    class Kind(models.TextChoices):
        STARTER = "starter"
        TRAINING = "training", "from a training run"
        ROLLBACK = "rollback", "roll back"

    name = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    bundle_uri = models.CharField(max_length=500)
    manifest_hash = models.CharField(max_length=64)
    previous = models.OneToOneField("self", null=True, on_delete=models.PROTECT, related_name="next")
    """One-to-one: two publishers that both follow release N cannot both succeed (compare-and-swap in the database)."""
    restores = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="restored_by")
    version = models.ForeignKey(ModelVersion, null=True, on_delete=models.PROTECT, related_name="releases")
    report = models.JSONField(default=dict, help_text="gates and figures at the time of publishing")
    reason = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    served_at = models.DateTimeField(null=True, help_text="when the inference server first confirmed it")

    class Meta:
        constraints = [
            # `previous` alone would let two first releases in: to a plain unique index, no NULL equals another.
            models.UniqueConstraint(fields=["previous"], nulls_distinct=False, name="one_release_follows_another"),
        ]


def serving_release() -> Release | None:
    """The release that should serve, or None before the starter release is loaded."""
    return Release.objects.order_by("-id").first()
