"""What a run was made of and what came of it, in one JSON object that leaves with `manage.py export_run`."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from django.conf import settings

from training.estimates import measure_pace
from training.jobs.config import ConfigError, parse_options, read_json
from training.jobs.events import read_events
from training.models import Release, TrainingRun

FORMAT = 1
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
NOT_FIGURES = ("gates", "release", "cost", "ablation", "samples")
"""What else stands among a run's metrics."""


def code_version() -> str:
    """The git commit, with `+` where files differ from it; the version of the package where there is no repository."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return _installed("heed")


def _git(*words: str) -> str:
    command = ["git", "-C", str(settings.BASE_DIR), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


def describe_code() -> dict[str, str]:
    """Of the process that asks: a supervisor asks right before it starts its job."""
    return {"heed": code_version(), **{name: _installed(name) for name in LIBRARIES}}


def measure_cost(run_dir: Path) -> dict[str, float]:
    """What a finished run cost: `train_s` for all its steps, `rest_s` after them, `peak_mb` of the job's memory."""
    events, _ = read_events(run_dir, 0)
    measured = measure_pace(events)
    cost = {} if measured is None else {"train_s": round(measured[0], 1), "rest_s": round(measured[1], 1)}
    try:
        peak_mb = read_json(run_dir / "manifest.json").get("peak_mb")
    except ConfigError:
        return cost
    return cost | ({"peak_mb": round(float(peak_mb), 1)} if peak_mb else {})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    name: str
    step: int
    mb: float


def list_checkpoints(run: TrainingRun) -> list[Checkpoint]:
    """The complete ones, newest first; empty where the run's folder is not on this machine."""
    found = []
    for folder in (run.run_dir / "checkpoints").glob("*-*"):
        if (folder / "COMPLETE").is_file():
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append(Checkpoint(folder.name, int(folder.name.split("-")[1]), round(size / 1e6, 1)))
    return sorted(found, key=lambda item: -item.step)


def list_options(run: TrainingRun) -> dict[str, Any]:
    """Every option with the value that the run has, those left at their defaults included.

    An option that this version of the code no longer knows keeps what was given.
    """
    given: Mapping[str, Any] = run.config.get("options", {})
    try:
        return asdict(parse_options(run.kind, given))
    except ConfigError:
        return dict(given)


def list_figures(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Dotted name -> number, out of nested metrics."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if not prefix and name in NOT_FIGURES:
            continue
        if isinstance(value, Mapping):
            flat |= list_figures(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def describe_run(run: TrainingRun) -> dict[str, Any]:
    """The whole record. Holds no text: rows stand in the snapshot that its hash names."""
    version = getattr(run, "version", None)
    release = Release.objects.filter(version__run=run, kind=Release.Kind.TRAINING).order_by("id").first()
    return {
        "format": FORMAT,
        "run": run.pk,
        "kind": run.kind,
        "state": run.state,
        "error": run.error,
        "options": list_options(run),
        "config": run.config,
        "code": run.config.get("code", {}),
        "data": {"hash": run.snapshot.content_hash, "rows": run.snapshot.rows, "manifest": run.snapshot.manifest},
        "attempts": run.attempt,
        **{name: _moment(getattr(run, name)) for name in ("created_at", "started_at", "finished_at")},
        "cost": run.metrics.get("cost", {}),
        "gates": run.metrics.get("gates", []),
        "metrics": list_figures(run.metrics),
        "series": run.series,
        "version": None if version is None else {"arm": version.arm, "content_hash": version.content_hash},
        "release": release.name if release else None,
    }


def _moment(value: Any) -> str | None:
    return value.isoformat(timespec="seconds") if value else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of a comparison: what stands there for each run, in order; None where a run has no such thing."""

    name: str
    values: Sequence[Any]

    @property
    def differs(self) -> bool:
        return len({str(value) for value in self.values}) > 1


def compare_options(runs: Sequence[TrainingRun]) -> list[Comparison]:
    return _line_up([list_options(run) for run in runs])


def compare_figures(runs: Sequence[TrainingRun]) -> list[Comparison]:
    """Numbers that at least one of the runs has, what it cost among them."""
    return _line_up(
        [
            list_figures(run.metrics) | {f"cost.{name}": value for name, value in run.metrics.get("cost", {}).items()}
            for run in runs
        ]
    )


def compare_origins(runs: Sequence[TrainingRun]) -> list[Comparison]:
    """Data and code."""
    origins: list[dict[str, Any]] = []
    for run in runs:
        code = run.config.get("code", {})
        data = {"data hash": run.snapshot.content_hash[:12], "rows": run.snapshot.rows}
        origins.append(data | {"code version" if name == "heed" else name: value for name, value in code.items()})
    return _line_up(origins)


def _line_up(columns: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [Comparison(name, [column.get(name) for column in columns]) for name in names]
