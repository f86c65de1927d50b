"""What a job is told: `config.json` of its run dir. No torch here: the web side builds forms from the options."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from classifier.base_models import Role

OptionValue = int | float | bool | str
START_SERVING = "serving"
START_BASE = "base"


class ConfigError(ValueError):
    """config.json or the data of a run is unusable; the message says which field and what would help."""


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option of a job as a form shows it. `low` and `high` bound numbers; `choices` is empty for free values."""

    name: str
    type: type[int] | type[float] | type[bool] | type[str]
    default: OptionValue
    low: float | None
    high: float | None
    help: str
    choices: tuple[str, ...] = ()

    def parse(self, raw: object) -> OptionValue:
        """A value from a form, JSON or the command line. Raises ConfigError naming the option."""
        value = self._convert(raw)
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name} is {value!r}, expected one of {', '.join(self.choices)}")
        if isinstance(value, str | bool):
            return value
        if not math.isfinite(value):
            raise ConfigError(f"{self.name} is {value}, expected a finite number")
        if self.low is not None and value < self.low:
            raise ConfigError(f"{self.name} is {value}, expected at least {self.low:g}")
        if self.high is not None and value > self.high:
            raise ConfigError(f"{self.name} is {value}, expected at most {self.high:g}")
        return value

    def _convert(self, raw: object) -> OptionValue:
        if self.type is bool:
            truth = {
                "1": True,
                "true": True,
                "on": True,
                "yes": True,
                "0": False,
                "false": False,
                "off": False,
                "no": False,
            }
            known = truth.get(str(raw).strip().lower())
            if known is None:
                raise ConfigError(f"{self.name} is {raw!r}, expected true or false")
            return known
        if self.type is str:
            return str(raw)
        try:
            number = float(str(raw))
            whole = int(number) if self.type is int else 0
        except (ValueError, OverflowError):
            raise ConfigError(f"{self.name} is {raw!r}, expected a number") from None
        if self.type is int and whole != number:
            raise ConfigError(f"{self.name} is {raw!r}, expected a whole number")
        return whole if self.type is int else number


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


TRACKERS = ("none", "trackio", "mlflow")


def tracker_option() -> Any:
    """Of the jobs that are built on transformers' Trainer."""
    return option(
        "none", "also send the figures to a tracker of yours, where one is installed on the worker", choices=TRACKERS
    )


@dataclass(frozen=True, slots=True)
class Options:
    """Base of the jobs' options."""

    start_from: str = option(
        START_SERVING,
        "go on from the serving arm, or start afresh from the base model",
        choices=(START_SERVING, START_BASE),
    )
    epochs: int = option(3, "passes over the training rows", low=1, high=100)
    batch_size: int = option(32, "rows per optimiser step; halved by itself when memory runs out", low=1, high=1024)
    learning_rate: float = option(
        5e-4, "peak step size; falls along a cosine (whole encoder: a tenth of it)", low=1e-7, high=0.1
    )
    lora_rank: int = option(16, "size of the low-rank adapter", low=0, high=256)
    max_tokens: int = option(192, "longer texts are cut for training", low=16, high=512)
    warmup_share: float = option(0.06, "share of the steps in which the step size rises", low=0, high=0.5)
    weight_decay: float = option(0.01, "pull towards zero", low=0, high=1)
    clip_norm: float = option(1.0, "longest gradient", low=0.01, high=100)
    checkpoint_steps: int = option(50, "steps between checkpoints", low=1, high=100_000)
    seed: int = option(13, "the same seed, rows and options give the same model", low=0, high=2**31 - 1)
    calibration_rows: int = option(
        240, "held-out rows the LLM reads when a bundle is put together; 0 = all", low=0, high=100_000
    )
    test_rows: int = option(
        600,
        "held-out rows that candidate and baseline are judged on, corrections first; 0 = all",
        low=0,
        high=1_000_000,
    )


@dataclass(frozen=True, slots=True)
class BertOptions(Options):
    lora_rank: int = option(16, "size of the low-rank adapter; 0 trains the whole encoder", low=0, high=256)
    dropout: float = option(0.1, "share of features dropped before the heads", low=0, high=0.9)
    patience: int = option(2, "stop after so many epochs without a better validation loss; 0 = never", low=0, high=100)
    class_weights: bool = option(False, "count rare values more (square root of their rarity)")


@dataclass(frozen=True, slots=True)
class LlmOptions(Options):
    """Of the jobs that train an adapter of the LLM with trl."""

    epochs: int = option(1, "passes over the training rows", low=1, high=20)
    batch_size: int = option(8, "rows per optimiser step", low=1, high=256)
    learning_rate: float = option(2e-4, "peak step size; falls along a cosine", low=1e-7, high=0.1)
    lora_rank: int = option(8, "size of the low-rank adapter", low=1, high=256)
    lora_layers: int = option(0, "adapt only so many of the upper layers: less time a step; 0 = all", low=0, high=1000)
    max_tokens: int = option(96, "tokens of the text; longer texts keep head and tail", low=16, high=4096)
    gradient_checkpointing: bool = option(False, "less memory, more time: for big models on a GPU")
    quantise: str = option("", "bitsandbytes on a GPU: 8bit or 4bit (QLoRA)", choices=("", "8bit", "4bit"))
    report_to: str = tracker_option()


@dataclass(frozen=True, slots=True)
class SftOptions(LlmOptions):
    max_rows: int = option(0, "use only so many training rows, feedback first; 0 = all", low=0, high=10_000_000)
    slot_noise: float = option(
        0.5,
        "share of label slots that later slots see filled wrongly, so that each is read off the text",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class RewardOptions(LlmOptions):
    """Of the shared options, `calibration_rows` and `test_rows` mean nothing to it: no bundle is made of a run."""

    epochs: int = option(2, "passes over the pairs", low=1, high=100)
    learning_rate: float = option(1e-4, "peak step size; falls along a cosine", low=1e-7, high=0.1)
    margin_scale: float = option(
        0.1,
        "reward by which the better answer must win, for each unit of the schema's costs; 0 = any lead",
        low=0,
        high=10,
    )
    center_coef: float = option(0.01, "pull of the rewards towards a mean of zero", low=0, high=1)


@dataclass(frozen=True, slots=True)
class KtoOptions(LlmOptions):
    epochs: int = option(1, "passes over the verdicts", low=1, high=100)
    batch_size: int = option(16, "verdicts per optimiser step", low=2, high=1024)
    learning_rate: float = option(5e-5, "peak step size; falls along a cosine", low=1e-7, high=0.1)
    loss: str = option(
        "apo_zero_unpaired",
        "apo_zero_unpaired: each verdict by itself; kto: measured against the answers of other texts in its batch",
        choices=("apo_zero_unpaired", "kto"),
    )
    beta: float = option(0.1, "pull towards the serving adapter", low=0.001, high=10)


@dataclass(frozen=True, slots=True)
class PpoOptions(LlmOptions):
    reward_run: int = option(0, "number of the finished reward run that judges; 0 = the newest", low=0, high=2**31 - 1)
    epochs: int = option(1, "answers written for each text", low=1, high=100)
    max_rows: int = option(512, "use only so many texts, those with verdicts first; 0 = all", low=0, high=10_000_000)
    batch_size: int = option(16, "answers written before each update", low=2, high=1024)
    mini_batches: int = option(1, "optimiser steps that a pass over those answers is cut into", low=1, high=64)
    ppo_epochs: int = option(4, "passes over the answers of an update", low=1, high=64)
    learning_rate: float = option(3e-5, "step size at the start; falls along a line", low=1e-7, high=0.1)
    kl_coef: float = option(0.05, "pull towards the serving adapter", low=0, high=100)
    clip_range: float = option(0.2, "how far an update may move a probability, as a share of it", low=0.01, high=1)
    temperature: float = option(1.0, "of the answers written: higher tries more", low=0.1, high=5)
    form_steps: int = option(
        60, "steps at most in which the arm first learns to write whole label lines; 0 = it can", low=0, high=10_000
    )
    malformed_penalty: float = option(2.0, "what an answer that is no label line loses", low=0, high=100)


@dataclass(frozen=True, slots=True)
class LabelPpoOptions(Options):
    arm: str = option("bert", "the arm that learns from the verdicts", choices=("bert", "llm"))
    reward: str = option(
        "brier",
        "brier: an answer earns what it was right beyond its own probability, which keeps probabilities honest; "
        "cost: right is 1, a mistake costs its share of the worst one",
        choices=("brier", "cost"),
    )
    epochs: int = option(3, "passes over the verdicts", low=1, high=100)
    batch_size: int = option(32, "verdicts per round; split by itself when memory runs out", low=1, high=1024)
    ppo_epochs: int = option(4, "optimiser steps on a round's verdicts before the next round", low=1, high=64)
    clip_range: float = option(0.2, "how far a round may move a probability, as a share of it", low=0.01, high=1)
    kl_coef: float = option(0.05, "pull towards the policy that training starts from", low=0, high=100)
    replay_weight: float = option(
        1.0,
        "weight of labelled rows learned again beside the verdicts, so that nothing is forgotten; 0 = none",
        low=0,
        high=100,
    )
    replay_rows: int = option(2000, "so many training rows are learned again; 0 = all", low=0, high=10_000_000)
    learning_rate: float = option(
        2e-4, "peak step size; falls along a cosine (whole encoder: a tenth of it)", low=1e-7, high=0.1
    )
    patience: int = option(
        3, "stop after so many evaluations without a better held-out reward; 0 = never", low=0, high=100
    )
    lora_rank: int = option(8, "size of the low-rank adapter where none is there yet", low=0, high=256)
    lora_layers: int = option(0, "LLM: adapt only so many of the upper layers; 0 = all", low=0, high=1000)
    quantise: str = option("", "LLM: bitsandbytes on a GPU: 8bit or 4bit (QLoRA)", choices=("", "8bit", "4bit"))
    report_to: str = tracker_option()


@dataclass(frozen=True, slots=True)
class RulesOptions(Options):
    """A rules run trains nothing: of the shared options `calibration_rows` alone means something to it."""

    rules_version: str = option("", "the rules to publish, by their hash")
    base_rules_version: str = option("", "the rules they were made from: these must still serve")
    reason: str = option("", "what the history of releases says of them")


OPTIONS: Mapping[str, type[Options]] = {
    "bert": BertOptions,
    "sft": SftOptions,
    "label_ppo": LabelPpoOptions,
    "reward": RewardOptions,
    "kto": KtoOptions,
    "ppo": PpoOptions,
    "rules": RulesOptions,
}
ARM_OF: Mapping[str, Role] = {"bert": "bert", "sft": "llm", "reward": "llm", "kto": "llm", "ppo": "llm"}
"""A reward model reads the LLM's base, and a run that makes one makes no part of a bundle: `MAKES_NO_BUNDLE`."""
MAKES_NO_BUNDLE = frozenset({"reward"})


def option_specs(kind: str) -> tuple[OptionSpec, ...]:
    """The options of a job in the order of its dataclass. Raises ConfigError for an unknown kind."""
    return tuple(_spec(item) for item in fields(_options_class(kind)))


def _options_class(kind: str) -> type[Options]:
    if kind not in OPTIONS:
        raise ConfigError(f"unknown job {kind!r}, expected one of {', '.join(OPTIONS)}")
    return OPTIONS[kind]


def _spec(item: Field[Any]) -> OptionSpec:
    assert item.default is not MISSING
    return OptionSpec(
        name=item.name,
        type=type(item.default),
        default=item.default,
        low=item.metadata["low"],
        high=item.metadata["high"],
        help=item.metadata["help"],
        choices=item.metadata["choices"],
    )


def parse_options(kind: str, raw: Mapping[str, object]) -> Options:
    """Options with the given values, all others at their defaults. Raises ConfigError naming the option."""
    specs = {spec.name: spec for spec in option_specs(kind)}
    unknown = sorted(set(raw) - set(specs))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}, expected one of {', '.join(specs)}")
    values: dict[str, Any] = {name: specs[name].parse(value) for name, value in raw.items()}
    return _options_class(kind)(**values)


@dataclass(frozen=True, slots=True)
class JobConfig:
    """`config.json`. `serving_bundle` is the bundle to go on from and to be measured against; None for a first one.

    `base` is a folder; None means the serving bundle's base model, or the configured default without a bundle.
    `init_from` is the part folder to go on from; it stands above `options.start_from`.
    """

    kind: str
    options: Options
    serving_bundle: Path | None = None
    base: Path | None = None
    base_models: Path | None = None
    init_from: Path | None = None
    reward_model: Path | None = None
    """Folder of a complete reward run, for ppo."""
    release: str = "candidate"
    """Name of the bundle that `assemble` makes."""

    @property
    def arm(self) -> Role:
        """The arm that the run trains: its kind's, or an option of its own. Raises KeyError where it trains none."""
        if isinstance(self.options, LabelPpoOptions):
            return "llm" if self.options.arm == "llm" else "bert"
        return ARM_OF[self.kind]

    def write(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        raw = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        write_json(run_dir / "config.json", raw)

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Raises ConfigError."""
        path = run_dir / "config.json"
        try:
            raw: Any = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                kind=raw["kind"],
                options=parse_options(raw["kind"], raw.get("options", {})),
                release=str(raw.get("release", "candidate")),
                **{
                    name: _path(raw.get(name))
                    for name in ("serving_bundle", "base", "base_models", "init_from", "reward_model")
                },
            )
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except KeyError as error:
            raise ConfigError(f"{path} lacks {error.args[0]!r}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: {error}") from error


def _path(raw: object) -> Path | None:
    return Path(str(raw)) if raw else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ConfigError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return value


def write_json(path: Path, value: object) -> None:
    """Whole or not at all: written beside and renamed into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
