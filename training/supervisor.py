"""One worker takes care of one run: a lease on the row, a subprocess group, the row kept up to date from its events.

The broker is never trusted with exclusivity. Who holds the lease token may write; everybody else returns at once. A
lease that is not renewed in time is lost: its holder kills its job, and whoever comes next goes on from the last
checkpoint.
"""

import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import OperationalError, close_old_connections
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from classifier.base_models import find_base
from classifier.errors import ClassifierError, ReleaseConflict
from training import preflight, registry, tracking
from training.errors import BundleGone, RunFailed
from training.jobs.config import MAKES_NO_BUNDLE, ConfigError, JobConfig, PpoOptions, parse_options, read_json
from training.jobs.runtime import EXIT_STOPPED
from training.models import Release, TrainingRun, serving_release
from training.process import JobProcess
from training.progress import Progress
from training.rule_files import copy_kept_rules

logger = logging.getLogger(__name__)

State = TrainingRun.State
POLL_S = 0.5
MAX_ATTEMPTS = 5
MAX_CONFLICTS = 3
"""How often a finished arm is put into a newer bundle because another release was published meanwhile."""


class LeaseLost(Exception):
    """Another worker has the run now, or the lease could not be renewed in time."""


class Cancelled(Exception):
    """The run was cancelled and its job has stopped."""


class Interrupted(Exception):
    """The job was stopped from outside after a checkpoint: the run goes back into the queue."""


@dataclass(frozen=True, slots=True)
class Lease:
    run_id: int
    token: uuid.UUID

    def update(self, **fields: Any) -> None:
        """Write the run, if it is still ours. Raises LeaseLost."""
        mine = TrainingRun.objects.filter(pk=self.run_id, lease_token=self.token, state=State.RUNNING)
        if not mine.update(**fields):
            raise LeaseLost(f"run {self.run_id} is in other hands")

    def end(self, state: State, **fields: Any) -> None:
        self.update(
            state=state, finished_at=timezone.now(), lease_token=None, lease_expires_at=None, eta_s=None, **fields
        )
        logger.info("run %s: %s", self.run_id, state)


def claim(run_id: int) -> Lease | None:
    """The lease of a queued run, or of a running one whose lease has expired; None where there is nothing to do."""
    now = timezone.now()
    lease = Lease(run_id, uuid.uuid4())
    free = Q(state=State.QUEUED) | Q(state=State.RUNNING, lease_expires_at__lt=now)
    claimed = TrainingRun.objects.filter(free, pk=run_id).update(
        state=State.RUNNING,
        lease_token=lease.token,
        lease_expires_at=now + timedelta(seconds=settings.RUN_LEASE_S),
        attempt=F("attempt") + 1,
        started_at=Coalesce("started_at", now),
        error="",
    )
    return lease if claimed else None


def supervise(run_id: int) -> None:
    """Work on a run until it ends. A duplicate delivery returns at once."""
    lease = claim(run_id)
    if lease is None:
        logger.info("run %s: nothing to do, or another worker has it", run_id)
        return
    supervision = Supervision(lease)
    try:
        end_by(lease, supervision)
    except LeaseLost as error:
        logger.warning("%s: this worker lets go", error)


def end_by(lease: Lease, supervision: "Supervision") -> None:
    """Work, and write how it ended into the row. Raises LeaseLost."""
    try:
        supervision.work()
    except Cancelled:
        lease.end(State.CANCELLED, stage="cancelled", log_tail=supervision.log_tail())
    except Interrupted:
        # Stopped from outside after a checkpoint is no failure: it does not count as an attempt.
        waiting = {"state": State.QUEUED, "stage": "queued", "attempt": F("attempt") - 1}
        lease.update(lease_token=None, lease_expires_at=None, **waiting)
    except (RunFailed, BundleGone, ConfigError, ClassifierError) as error:
        lease.end(State.FAILED, error=str(error), log_tail=supervision.log_tail())
    except LeaseLost:
        raise
    except Exception as error:
        # The edge of the process: the row must not stay "running" for want of a handler.
        lease.end(State.FAILED, error=f"the supervisor failed: {type(error).__name__}", log_tail=supervision.log_tail())
        raise


class Supervision:
    """The work under one lease."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.run = TrainingRun.objects.select_related("snapshot").get(pk=lease.run_id)
        self.run_dir = self.run.run_dir
        self.progress = Progress(self.run_dir)
        self._renewed = time.monotonic()
        self._cancel_deadline: float | None = None

    def work(self) -> None:
        """Train, assemble, register, publish. Every step may be repeated after a crash."""
        if self.run.attempt > MAX_ATTEMPTS:
            raise RunFailed(
                f"its worker was lost {MAX_ATTEMPTS} times: look at the machine's memory, then start a new run"
            )
        self._beat()
        baseline = self._prepare()
        self._run_job(f"training.jobs.{self.run.kind}", done=self.run_dir / "manifest.json")
        if self.run.kind in MAKES_NO_BUNDLE:
            self._keep_part()
            return
        for _ in range(MAX_CONFLICTS):
            self._run_job("training.jobs.assemble", done=self.run_dir / "report.json")
            try:
                self._finish(baseline)
            except ReleaseConflict:
                baseline = self._rebase()
            else:
                return
        raise RunFailed("other releases were published again and again meanwhile: start a new run")

    def _prepare(self) -> Release:
        """Fill the run dir once; a resumed attempt finds it as it was. Returns the release it is measured against."""
        if not (self.run_dir / "config.json").is_file():
            self._copy_data()
            if self.run.kind == TrainingRun.Kind.RULES:
                copy_kept_rules(self.run.config["options"]["rules_version"], self.run_dir / "rules")
            return self._write_config()
        return Release.objects.get(pk=self.run.config["baseline_release"])

    def _copy_data(self) -> None:
        source = Path(self.run.snapshot.uri)
        target = self.run_dir / "data"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            for path in source.glob("*.jsonl"):
                shutil.copyfile(path, target / path.name)
        except OSError as error:
            raise RunFailed(f"the snapshot cannot be read: {error}") from error
        if not (target / "train.jsonl").is_file():
            raise RunFailed(f"the snapshot is no longer in {source}: freeze a new one")

    def _write_config(self) -> Release:
        baseline = serving_release()
        if baseline is None:
            raise RunFailed("no release serves: load the starter release with manage.py load_starter")
        code = self.run.config.get("code") or tracking.describe_code()
        self.run.config = {**self.run.config, "baseline_release": baseline.pk, "code": code}
        self.lease.update(config=self.run.config)
        bases = Path(settings.BASE_MODELS_DIR)
        JobConfig(
            kind=self.run.kind,
            options=parse_options(self.run.kind, self.run.config["options"]),
            serving_bundle=registry.bundle_path(baseline),
            base=find_base(self.run.config["base"], bases) if self.run.config.get("base") else None,
            base_models=bases,
            reward_model=self._find_reward_model(),
            release=self.run_dir.name,
        ).write(self.run_dir)
        return baseline

    def _find_reward_model(self) -> Path | None:
        options = parse_options(self.run.kind, self.run.config["options"])
        if not isinstance(options, PpoOptions):
            return None
        found = registry.find_reward_run(options.reward_run)
        if found is None:
            which = f"run {options.reward_run} is none" if options.reward_run else "there is none"
            raise RunFailed(f"PPO needs a reward run that has succeeded, and {which}: launch one of the kind reward")
        return found.run_dir

    def _rebase(self) -> Release:
        """Another release was published meanwhile: judge the new arm against that one, inside its bundle."""
        logger.info("run %s: another release was published, assembling again", self.run.pk)
        (self.run_dir / "report.json").unlink()
        return self._write_config()

    def _run_job(self, module: str, *, done: Path) -> None:
        """Run a job to its end, the row following it. Raises Cancelled, Interrupted, LeaseLost or RunFailed."""
        if done.is_file():
            self._beat()
            return
        process = JobProcess.start(module, self.run_dir)
        try:
            while process.wait(POLL_S) is None:
                self._beat(process)
        finally:
            # Whatever happened, no job outlives the right to run it.
            process.kill()
        self._beat()
        if process.returncode == EXIT_STOPPED:
            raise Interrupted
        if process.returncode != 0 or not done.is_file():
            raise RunFailed(process.explain())

    def _beat(self, process: JobProcess | None = None) -> None:
        """Renew the lease, bring the row up to date, pass a wish to cancel on."""
        self.progress.read()
        expires = timezone.now() + timedelta(seconds=settings.RUN_LEASE_S)
        try:
            close_old_connections()
            self.lease.update(lease_expires_at=expires, **self._changes())
            is_cancelled = TrainingRun.objects.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()
        except OperationalError as error:
            # A database that is away for a moment is no reason to lose hours of work; one that is away for longer than
            # the lease is: another worker may have the run by now.
            if time.monotonic() - self._renewed > settings.RUN_LEASE_S:
                raise LeaseLost(f"run {self.run.pk}: the lease could not be renewed") from error
            return
        self._renewed = time.monotonic()
        if is_cancelled:
            self._cancel(process)

    def _changes(self) -> dict[str, Any]:
        """The columns that a page shows, where there is something new for them."""
        return {**self.progress.as_fields(), "log_tail": self.log_tail()} if self.progress.is_new else {}

    def _cancel(self, process: JobProcess | None) -> None:
        if self._cancel_deadline is None:
            self._cancel_deadline = time.monotonic() + settings.RUN_CANCEL_GRACE_S
            if process is not None:
                process.terminate()
        elif time.monotonic() > self._cancel_deadline and process is not None:
            process.kill()
        if process is None:
            raise Cancelled

    def _finish(self, baseline: Release) -> None:
        """Register, and publish where every gate passed. Raises ReleaseConflict."""
        made = read_json(self.run_dir / "manifest.json")
        report = read_json(self.run_dir / "report.json")
        metrics = {**self.progress.metrics, **{key: report[key] for key in ("candidate", "baseline", "gates")}}
        metrics |= {"cost": preflight.note_pace(self.run, tracking.measure_cost(self.run_dir))}
        if "samples" in report:
            metrics["samples"] = report["samples"]
        version = registry.register_version(self.run, made, {**metrics, "ablation": report.get("ablation")})
        refusal = explain_gates(report)
        if self.run.publishes and not refusal:
            publication = registry.Publication(
                bundle=self.run_dir / "bundle",
                kind=Release.Kind.TRAINING,
                version=version,
                report=report,
                reason=str(self.run.config["options"].get("reason", ""))[:200],
                by_id=self.run.created_by_id,
            )
            already = Release.objects.filter(version=version, kind=Release.Kind.TRAINING).first()
            metrics["release"] = (already or registry.publish_release(publication, expected=baseline)).name
        stage = "released" if "release" in metrics else "refused by a gate" if refusal else "ready"
        self.lease.end(
            State.SUCCEEDED, stage=stage, progress=1.0, metrics=metrics, error=refusal, log_tail=self.log_tail()
        )

    def _keep_part(self) -> None:
        """The end of a run whose part serves nobody: it stays in the run dir for the runs that read it."""
        made = read_json(self.run_dir / "manifest.json")
        cost = preflight.note_pace(self.run, tracking.measure_cost(self.run_dir))
        metrics = {**self.progress.metrics, **made["metrics"], "cost": cost}
        self.lease.end(State.SUCCEEDED, stage="ready", progress=1.0, metrics=metrics, log_tail=self.log_tail())

    def log_tail(self) -> str:
        return JobProcess.read_tail(self.run_dir)


def explain_gates(report: Mapping[str, Any]) -> str:
    """A sentence for each gate that failed; empty where all passed."""
    return " ".join(
        f"Not released: {gate['name']} is {gate['value']}, the bar is {gate['bar']} ({gate['why']})."
        for gate in report["gates"]
        if not gate["passed"]
    )
