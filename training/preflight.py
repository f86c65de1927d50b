"""Before a run is queued: how long it would take, and what its worker lacks for it. No torch here."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from redis.exceptions import RedisError

from classifier.base_models import Role, base_name, configured_base
from classifier.bundle import Manifest, read_manifest
from classifier.errors import BundleError
from training import registry
from training.corpus.rows import iter_jsonl
from training.estimates import DEFAULT_BASE_MB, Estimate, Pace, Workload, arm_of, estimate_run
from training.jobs.config import START_SERVING, Options, parse_options
from training.jobs.kinds import KINDS, TRAIN_FILE
from training.machine import Machine, look_at_machine
from training.models import DatasetSnapshot, TrainingRun, serving_release

logger = logging.getLogger(__name__)

MACHINE_KEY = "training-machine"
SAMPLE_ROWS = 500
TYPICAL_CHARACTERS = 120.0
"""Of a text, where there is no row to look at yet."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A run that somebody thinks about."""

    kind: str
    options: Mapping[str, object]
    snapshot: DatasetSnapshot | None = None
    """None: what people have said by now is frozen when the run starts; `fresh` says how much that is."""
    fresh: Mapping[str, int] = field(default_factory=dict)
    """File of a snapshot -> rows that a new one would have in it."""
    base: str = ""
    """Name of a base model; blank: that of the serving arm."""


@dataclass(frozen=True, slots=True)
class Lack:
    text: str
    """What is missing, and the cure."""
    is_fatal: bool


@dataclass(frozen=True, slots=True)
class Forecast:
    rows: int
    estimate: Estimate
    machine: Machine
    seen_at: datetime | None
    """When a training worker last said what it has; None: none has, and `machine` is the one that answers."""
    lacks: tuple[Lack, ...]

    @property
    def refusal(self) -> str:
        """Why it cannot run; empty where it can."""
        return " ".join(lack.text for lack in self.lacks if lack.is_fatal)


def report_machine() -> None:
    """Called by the training worker: the web process may be on another machine."""
    machine = look_here()
    cache.set(MACHINE_KEY, {"at": timezone.now().isoformat(), **machine.as_dict()}, timeout=None)


def read_machine() -> tuple[Machine, datetime | None]:
    """What the training worker last reported, or this machine where none has."""
    try:
        raw = cache.get(MACHINE_KEY)
    except RedisError as error:
        # A cache that is away is no reason to refuse a run.
        logger.warning("what the training worker reported cannot be read: %s", error)
        raw = None
    if raw is None:
        return look_here(), None
    machine = Machine.from_dict({name: value for name, value in raw.items() if name != "at"})
    return machine, datetime.fromisoformat(raw["at"])


def look_here() -> Machine:
    return look_at_machine(Path(settings.RUNS_DIR), Path(settings.BASE_MODELS_DIR))


def forecast_run(wish: Wish) -> Forecast:
    """Raises ConfigError naming an odd option."""
    options = parse_options(wish.kind, wish.options)
    machine, seen_at = read_machine()
    arm = arm_of(KINDS[wish.kind], options)
    base = wish.base or serving_base(arm)
    rows = count_rows(wish, KINDS[wish.kind].reads)
    work = Workload(
        kind=wish.kind,
        options=options,
        rows=rows,
        characters=mean_characters(wish.snapshot.uri) if wish.snapshot else TYPICAL_CHARACTERS,
        base=machine.find_base(base) if base else None,
    )
    estimate = estimate_run(work, find_pace(wish.kind, arm))
    lacks = [
        *check_data(wish, options, rows),
        *check_base(wish, options, machine, arm, base),
        *check_machine(options, machine, estimate),
    ]
    if seen_at is None:
        lacks.append(Lack("No training worker has reported yet: the run waits in the queue until one starts.", False))
    return Forecast(rows, estimate, machine, seen_at, tuple(lacks))


def check_data(wish: Wish, options: Options, rows: int) -> list[Lack]:
    kind = KINDS[wish.kind]
    lacks = []
    if not rows:
        cure = kind.cure or "choose another snapshot, or freeze a new one"
        lacks.append(Lack(f"The data has no rows in {kind.reads}, which {kind.title} reads: {cure}.", True))
    if wish.kind == "ppo" and registry.find_reward_run(getattr(options, "reward_run", 0)) is None:
        lacks.append(Lack("PPO needs a reward model: run the kind reward to its end first, and name no other.", True))
    return lacks


def check_base(wish: Wish, options: Options, machine: Machine, arm: str | None, name: str) -> list[Lack]:
    if not name or arm is None:
        return []
    serving = serving_base(arm)
    if wish.base and serving and wish.base != serving and options.start_from == START_SERVING:
        cure = "set start_from to base"
        return [Lack(f"The serving arm stands on {serving} and does not fit on {wish.base}: {cure}.", True)]
    found = machine.find_base(name)
    if found is None and not wish.base and not has_serving_arm(arm):
        return [Lack(f"The base model {name} is fetched first: the training worker has to reach the index.", False)]
    if found is None:
        cure = f"fetch it with `python -m classifier.base_models` or put it into the folder {settings.BASE_MODELS_DIR}"
        return [Lack(f"The training worker has no base model {name}: {cure}.", True)]
    if wish.base and found.role != arm:
        return [Lack(f"{name} is no model for the {arm} arm: choose another base model.", True)]
    return []


def check_machine(options: Options, machine: Machine, estimate: Estimate) -> list[Lack]:
    lacks = []
    quantise = str(getattr(options, "quantise", ""))
    if quantise and not machine.gpus:
        lacks.append(
            Lack(f"The training worker has no GPU, which quantise={quantise} needs: leave quantise empty.", True)
        )
    tracker = str(getattr(options, "report_to", "none"))
    if tracker != "none" and tracker not in machine.trackers:
        lacks.append(
            Lack(f"The training worker has no {tracker}: pip install it there, or set report_to to none.", True)
        )
    if estimate.disk_mb > machine.free_mb:
        lacks.append(
            Lack(
                f"The run wants about {estimate.disk_mb:.0f} MB of disk, the training worker has {machine.free_mb:.0f} "
                "MB free: remove old run folders.",
                True,
            )
        )
    has, of_what = (machine.gpu_mb, "its GPU") if machine.gpus else (machine.memory_mb, "the machine")
    if estimate.memory_mb > has:
        lacks.append(
            Lack(
                f"The run wants about {estimate.memory_mb:.0f} MB of memory, {of_what} has {has:.0f} MB: a smaller "
                "batch_size or max_tokens would help. Batches are halved where they do not fit.",
                False,
            )
        )
    return lacks


def serving_base(arm: str | None) -> str:
    """The base model of what serves, or the configured one where nothing of that arm does; blank where unknown."""
    manifest = read_serving()
    if arm is None or manifest is None:
        return ""
    role: Role = "bert" if arm == "bert" else "llm"
    part = manifest.bert if role == "bert" else manifest.llm
    return part.base if part else base_name(configured_base(role))


def has_serving_arm(arm: str) -> bool:
    manifest = read_serving()
    return manifest is not None and (manifest.bert if arm == "bert" else manifest.llm) is not None


def read_serving() -> Manifest | None:
    """None before a release serves, and where its bundle is not on this machine."""
    release = serving_release()
    try:
        return read_manifest(registry.bundle_path(release)) if release else None
    except BundleError:
        return None


def count_rows(wish: Wish, name: str) -> int:
    if wish.snapshot is None:
        return wish.fresh.get(name, 0)
    known = wish.snapshot.manifest.get("rows", {})
    return int(known["train"]) if name == TRAIN_FILE and "train" in known else count_lines(wish.snapshot.uri, name)


# A snapshot is immutable: what was counted once stays right.
@lru_cache(maxsize=256)
def count_lines(folder: str, name: str) -> int:
    path = Path(folder) / name
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


@lru_cache(maxsize=256)
def mean_characters(folder: str) -> float:
    path = Path(folder) / TRAIN_FILE
    if not path.is_file():
        return TYPICAL_CHARACTERS
    lengths = [len(str(raw.get("text", ""))) for (_, raw), _ in zip(iter_jsonl(path), range(SAMPLE_ROWS), strict=False)]
    return sum(lengths) / len(lengths) if lengths else TYPICAL_CHARACTERS


def find_pace(kind: str, arm: str | None) -> Pace | None:
    """Of the newest finished run of this kind and arm that was measured."""
    runs = TrainingRun.objects.filter(kind=kind, state=TrainingRun.State.SUCCEEDED, metrics__cost__pace__arm=arm)
    run = runs.order_by("-id").first()
    if run is None:
        return None
    measured = {name: value for name, value in run.metrics["cost"]["pace"].items() if name != "arm"}
    return Pace(run_id=run.pk, **measured)


def note_pace(run: TrainingRun, cost: Mapping[str, float]) -> dict[str, Any]:
    """A run's cost with what the next estimate of its kind needs; as it is where that was not measured.

    Called on the worker, at the end of the run.
    """
    if run.kind not in KINDS or not cost.get("train_s"):
        return dict(cost)
    options = parse_options(run.kind, run.config["options"])
    arm = arm_of(KINDS[run.kind], options)
    wish = Wish(run.kind, run.config["options"], run.snapshot)
    base = look_here().find_base(str(run.config.get("base") or serving_base(arm)))
    work = Workload(run.kind, options, count_rows(wish, KINDS[run.kind].reads), mean_characters(run.snapshot.uri), base)
    pace = {
        "arm": arm,
        "rows_per_s": round(work.passes / cost["train_s"], 3),
        "rest_s": cost.get("rest_s", 0.0),
        "tokens": round(work.tokens, 1),
        "base_mb": work.base_mb or DEFAULT_BASE_MB["llm"],
        "peak_mb": cost.get("peak_mb", 0.0),
        "batch_tokens": work.batch_tokens,
    }
    return {**cost, "pace": pace}
