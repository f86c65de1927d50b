"""How long a run takes and how much memory it wants, before it is queued.

From its rows, its options, its base model and the pace of the last run of its kind on the worker. Pure; the answers are
rough, and say what they rest on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from training.jobs.config import Options
from training.jobs.kinds import KINDS, Kind
from training.machine import BaseModel

DEFAULT_BASE_MB = {"bert": 87.0, "llm": 513.0}
"""Of the default base models in float32: what the assumed paces are for."""
DEFAULT_SHAPE = {"bert": (6, 384), "llm": (30, 576)}
"""Layers and hidden size of the same."""
DEFAULT_TOKENS = 40.0
CHARACTERS_PER_TOKEN = 4.2
"""English, byte-pair and word-piece alike."""
DECIDE_S = 0.1
"""Of one held-out text while a candidate is judged: both arms on two CPU cores."""
RUNTIME_MB = 700.0
"""Python with torch and transformers, before any weight."""
ACTIVATION_BYTES = 64
"""A token's activations kept for the way back, per layer and hidden unit: some 16 float32 tensors."""
PREFIX_TOKENS = 150
"""The LLM's shared prompt prefix."""
QUANTISED = {"": 1.0, "8bit": 0.25, "4bit": 0.14}


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a finished run. `rows_per_s`: rows of the snapshot passed over, an epoch counting them once."""

    run_id: int
    rows_per_s: float
    rest_s: float
    """Calibrating and judging, after training."""
    tokens: float
    base_mb: float
    peak_mb: float
    batch_tokens: float
    """Rows of a batch times the longest row: what peak memory depends on."""


@dataclass(frozen=True, slots=True)
class Workload:
    kind: str
    options: Options
    rows: int
    """Of the file that the kind reads."""
    characters: float
    """Mean length of a text."""
    base: BaseModel | None
    """None where it is not known."""

    @property
    def base_mb(self) -> float:
        return self.base.size_mb if self.base and self.base.size_mb else DEFAULT_BASE_MB[self.role]

    @property
    def role(self) -> str:
        return arm_of(KINDS[self.kind], self.options) or "llm"

    @property
    def tokens(self) -> float:
        return min(self.characters / CHARACTERS_PER_TOKEN + 2, float(self.options.max_tokens))

    @property
    def passes(self) -> int:
        """Rows that are passed over in all epochs."""
        limit = int(getattr(self.options, "max_rows", 0) or 0)
        return (min(self.rows, limit) if limit else self.rows) * self.options.epochs

    @property
    def batch_tokens(self) -> float:
        return float(self.options.batch_size * self.options.max_tokens)


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float
    memory_mb: float
    disk_mb: float
    measured_on: int | None
    """The run whose pace it rests on; None: assumed for two CPU cores."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds),
            "memory_mb": round(self.memory_mb),
            "disk_mb": round(self.disk_mb),
            "measured_on": self.measured_on,
        }


def arm_of(kind: Kind, options: Options) -> str | None:
    """The arm whose base model a run loads; None for a run that is about no single one."""
    return kind.arm or getattr(options, "arm", None)


def estimate_run(work: Workload, pace: Pace | None = None) -> Estimate:
    seconds = estimate_training_s(work, pace) + (pace.rest_s if pace else estimate_judging_s(work.options))
    return Estimate(seconds, estimate_memory_mb(work, pace), estimate_disk_mb(work), pace.run_id if pace else None)


def estimate_training_s(work: Workload, pace: Pace | None) -> float:
    """A step's time grows with the tokens of a row and with the weights that they pass through."""
    if pace is not None and pace.rows_per_s > 0:
        heavier = work.tokens / pace.tokens * work.base_mb / pace.base_mb
        return work.passes / pace.rows_per_s * heavier
    heavier = work.tokens / DEFAULT_TOKENS * work.base_mb / DEFAULT_BASE_MB[work.role]
    return work.passes / KINDS[work.kind].rows_per_s * heavier


def estimate_judging_s(options: Options) -> float:
    """Candidate and baseline answer the held-out rows, after the arms were calibrated on others."""
    return DECIDE_S * (options.calibration_rows + 2 * options.test_rows)


def estimate_memory_mb(work: Workload, pace: Pace | None) -> float:
    """Weights, gradients and optimiser of what is trained, activations of a batch, and the runtime."""
    if pace and pace.peak_mb and pace.base_mb == work.base_mb and pace.batch_tokens == work.batch_tokens:
        return pace.peak_mb
    weights = work.base_mb * QUANTISED.get(str(getattr(work.options, "quantise", "")), 1.0) * KINDS[work.kind].models
    # An adapter is a few per cent of the weights; a whole encoder wants gradients and two moments beside them.
    trained = 3 * work.base_mb * (1.0 if work.options.lora_rank == 0 else 0.06)
    layers, hidden = (work.base.layers, work.base.hidden) if work.base else DEFAULT_SHAPE[work.role]
    longest = min(work.options.max_tokens, 3 * work.tokens) + (PREFIX_TOKENS if work.role == "llm" else 0)
    activations = work.options.batch_size * longest * layers * hidden * ACTIVATION_BYTES / 1e6
    if getattr(work.options, "gradient_checkpointing", False):
        activations /= max(layers, 1) ** 0.5
    return RUNTIME_MB + weights + trained + activations


def estimate_disk_mb(work: Workload) -> float:
    """Two checkpoints with their optimiser, the part, the bundle, and a copy of the rows."""
    trained = work.base_mb * (1.0 if work.options.lora_rank == 0 else 0.06)
    return 100 + 8 * trained + work.rows * (work.characters + 400) / 1e6


def measure_pace(events: Iterable[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Seconds that all steps of the training stage take, and those after it; None before two steps were made.

    The time between two attempts does not count: each begins with a stage of its own.
    """
    train_s, steps, total, rest_s = 0.0, 0, 0, 0.0
    before: tuple[datetime, int] | None = None
    last_step: datetime | None = None
    for event in events:
        at = datetime.fromisoformat(str(event["t"]))
        if event["kind"] == "progress" and event.get("stage") == "train":
            done = int(event["done"])
            if before is not None and done > before[1]:
                train_s, steps = train_s + (at - before[0]).total_seconds(), steps + done - before[1]
            before, last_step, total, rest_s = (at, done), at, int(event["total"]), 0.0
        elif event["kind"] == "stage":
            before = None
        if last_step is not None:
            rest_s = (at - last_step).total_seconds()
    return (train_s / steps * total, rest_s) if steps else None
