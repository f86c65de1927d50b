"""A training run as people see it: stages, progress, losses, gates, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedback import ml
from feedback.plots import Chart, draw_series
from feedback.spans import plain_span

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
    title: str
    stages: Sequence[Stage]
    charts: Sequence[Chart]
    gates: Sequence[Gate]
    release: ml.Release | None
    log: str
    percent: int
    options: Sequence[tuple[str, Any, bool]]
    """Name, value, and whether it differs from the default."""
    facts: Sequence[tuple[str, str]]
    """What it was made of, and what it cost."""
    checkpoints: Sequence[ml.Checkpoint]
    samples: Samples | None

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
        title=ml.title_of(run.kind),
        stages=list_stages(run, release, gates),
        charts=draw_curves(run),
        gates=gates,
        release=release,
        log="\n".join(run.log_tail.splitlines()[-LOG_LINES:]),
        percent=round(100 * run.progress),
        options=list_options(run),
        facts=list_facts(run),
        checkpoints=ml.list_checkpoints(run),
        samples=list_samples(run),
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
    names = STAGES if ml.makes_release(run.kind) else STAGES[:2]
    now, mark = stage_index(run.stage), "stopped" if run.is_ended else "now"
    if run.state == run.State.SUCCEEDED:
        has_failed = any(not gate.passed for gate in gates)
        now, mark = STAGES.index("gate" if has_failed else "live"), "stopped" if has_failed else "ahead"
        if release is not None:
            now = len(RAIL)
    return [Stage(name, "done" if i < now else mark if i == now else "ahead") for i, name in enumerate(names)]


def stage_index(stage: str) -> int:
    """Where the job's word stands on the rail; the first stage for a word that is not on it."""
    for index, (_, words) in enumerate(RAIL):
        if stage.startswith(words):
            return index
    return 0


CURVES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("loss",)),
    ("Reward", ("reward", "score", "margin", "objective")),
    ("KL to where it started", ("kl",)),
    ("Shares", ("accuracy", "share", "frac", "recall")),
)
"""Title of a chart, and what stands in the names of the figures it shows."""
MAX_LINES = 4


def group_figures(series: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Chart title -> names of its figures, in the order in which they came. Figures of no known sort have no chart."""
    groups: dict[str, list[str]] = {title: [] for title, _ in CURVES}
    for name in dict.fromkeys(str(point["name"]) for point in series):
        found = next((title for title, parts in CURVES if any(part in name.lower() for part in parts)), None)
        if found is not None and len(groups[found]) < MAX_LINES:
            groups[found].append(name)
    return {title: names for title, names in groups.items() if names}


def draw_curves(run: ml.TrainingRun) -> list[Chart]:
    drawn = [
        draw_series(run.series, names, title=f"{title} of run {run.pk}", heading=title)
        for title, names in group_figures(run.series).items()
    ]
    return [chart for chart in drawn if chart is not None]


def list_options(run: ml.TrainingRun) -> list[tuple[str, Any, bool]]:
    try:
        defaults = {spec.name: spec.default for spec in ml.run_options(run.kind)}
    except ml.ConfigError:  # a kind that this version no longer has
        defaults = {}
    return [(name, value, value != defaults.get(name)) for name, value in ml.list_options(run).items()]


def list_facts(run: ml.TrainingRun) -> list[tuple[str, str]]:
    code, cost = run.config.get("code", {}), run.metrics.get("cost", {})
    facts = [
        ("data", f"{run.snapshot.content_hash[:12]}, {run.snapshot.rows} rows"),
        ("code", str(code.get("heed", ""))),
        ("base model", str(run.config.get("base") or "as the serving arm")),
        ("libraries", ", ".join(f"{name} {version}" for name, version in code.items() if name != "heed")),
        ("training", plain_span(cost["train_s"]) if "train_s" in cost else ""),
        ("most memory", f"{cost['peak_mb']:.0f} MB" if "peak_mb" in cost else ""),
        ("copy of", f"run {run.config['cloned_from']}" if "cloned_from" in run.config else ""),
    ]
    return [(name, value) for name, value in facts if value]


@dataclass(frozen=True, slots=True)
class Sample:
    row: str
    source: str
    is_better: bool
    changes: Sequence[str]
    text: str
    """Empty where the run's rows are not on this machine."""


@dataclass(frozen=True, slots=True)
class Samples:
    rows: int
    better: int
    worse: int
    shown: Sequence[Sample]


def list_samples(run: ml.TrainingRun) -> Samples | None:
    """Held-out rows that the run answers otherwise than what it started from; None before it has been judged."""
    kept = run.metrics.get("samples")
    if not kept:
        return None
    texts = ml.read_row_texts(run, [str(sample["row"]) for sample in kept["shown"]])
    shown = [
        Sample(sample["row"], sample["source"], sample["gain"] > 0, list_changes(sample), texts.get(sample["row"], ""))
        for sample in kept["shown"]
    ]
    return Samples(kept["rows"], kept["better"], kept["worse"], shown)


def list_changes(sample: Mapping[str, Any]) -> list[str]:
    """`risk: none → high (right: high)`, for each label that changed."""
    before, after, wanted = sample["before"], sample["after"], sample["wanted"]
    return [
        f"{name}: {before.get(name, 'unscored')} → {after.get(name, 'unscored')} (right: {wanted[name]})"
        for name in wanted
        if before.get(name) != after.get(name)
    ]


@dataclass(frozen=True, slots=True)
class Curves:
    names: Sequence[str]
    """Figures that at least one of the runs has as a curve."""
    chosen: str
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class ComparedPart:
    title: str
    differing: Sequence[ml.Comparison]
    same: Sequence[ml.Comparison]


def compare_curves(runs: Sequence[ml.TrainingRun], wanted: str = "") -> Curves:
    """One figure of several runs in one chart; by default the first that most of them have."""
    counts = Counter(name for run in runs for name in dict.fromkeys(str(point["name"]) for point in run.series))
    names = sorted(counts, key=lambda name: (-counts[name], name))
    chosen = wanted if wanted in counts else names[0] if names else ""
    points = [{**point, "name": f"#{run.pk}"} for run in runs for point in run.series if point["name"] == chosen]
    words = ", ".join(f"{run.pk}" for run in runs)
    title = f"{chosen.replace('_', ' ').capitalize()} of runs {words}"
    return Curves(names, chosen, draw_series(points, [f"#{run.pk}" for run in runs], title=title))
