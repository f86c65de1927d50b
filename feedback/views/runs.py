"""A training run as people see it: stages, progress, losses, gates, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback import ml
from feedback.plots import Chart, draw_series

RAIL: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("snapshot", ("queued", "starting", "prepare")),
    ("train", ("train", "save")),
    ("evaluate", ("calibrate", "evaluate")),
    ("gate", ("refused", "ready")),
    ("live", ("released",)),
)
"""The stages that people see, with the beginnings of the job's own words for them."""
STAGES = tuple(name for name, _ in RAIL)


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    state: str
    """`done`, `now`, `stopped` or `ahead`."""


@dataclass(frozen=True, slots=True)
class Gate:
    name: str
    passed: bool
    value: str
    bar: str
    why: str


@dataclass(frozen=True, slots=True)
class ShownRun:
    stages: Sequence[Stage]
    chart: Chart | None
    gates: Sequence[Gate]
    release: ml.Release | None
    log: str
    percent: int
    losses: Sequence[str]

    @property
    def verdict(self) -> str:
        """One line: should it serve?"""
        failed = [gate.name for gate in self.gates if not gate.passed]
        if not self.gates:
            return ""
        if failed:
            return f"{len(failed)} of {len(self.gates)} gates failed: {', '.join(failed)}. It does not serve."
        return f"All {len(self.gates)} gates passed."


LOG_LINES = 40


def show_run(run: ml.TrainingRun) -> ShownRun:
    release = find_release(run)
    gates = list_gates(run.metrics if "gates" in run.metrics or release is None else release.report)
    return ShownRun(
        stages=list_stages(run, release, gates),
        chart=draw_series(run.series, ("loss", "val_loss"), title=f"Loss of run {run.pk}"),
        gates=gates,
        release=release,
        log="\n".join(run.log_tail.splitlines()[-LOG_LINES:]),
        percent=round(100 * run.progress),
        losses=[f"{name} {value:.3g}" for name, value in newest_values(run.series).items()],
    )


def find_release(run: ml.TrainingRun) -> ml.Release | None:
    """The release that the run's version made, if it came to that."""
    return ml.list_releases().filter(version__run=run).order_by("id").first()


def list_gates(report: Mapping[str, Any]) -> list[Gate]:
    return [
        Gate(str(item["name"]), bool(item["passed"]), _figure(item["value"]), _figure(item["bar"]), str(item["why"]))
        for item in report.get("gates", [])
    ]


def _figure(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def list_stages(run: ml.TrainingRun, release: ml.Release | None, gates: Sequence[Gate]) -> list[Stage]:
    now, mark = stage_index(run.stage), "stopped" if run.is_ended else "now"
    if run.state == run.State.SUCCEEDED:
        has_failed = any(not gate.passed for gate in gates)
        now, mark = STAGES.index("gate" if has_failed else "live"), "stopped" if has_failed else "ahead"
        if release is not None:
            now = len(RAIL)
    return [Stage(name, "done" if i < now else mark if i == now else "ahead") for i, (name, _) in enumerate(RAIL)]


def stage_index(stage: str) -> int:
    """Where the job's word stands on the rail; the first stage for a word that is not on it."""
    for index, (_, words) in enumerate(RAIL):
        if stage.startswith(words):
            return index
    return 0


def newest_values(series: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {str(point["name"]): float(point["value"]) for point in series}
