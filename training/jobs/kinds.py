"""The kinds of runs that people launch: a name, a line of meaning, and what each reads. No torch here.

Options stand in config.py; a kind is offered where both name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from classifier.base_models import Role
from training.corpus.preferences import KTO_FILE, PAIRS_FILE, REWARDS_FILE
from training.jobs.config import MAKES_NO_BUNDLE, OPTIONS

TRAIN_FILE = "train.jsonl"


@dataclass(frozen=True, slots=True)
class Kind:
    title: str
    meaning: str
    arm: Role | None
    """Whose base model it loads; None where it is no single one, or an option says so."""
    rows_per_s: float
    """Assumed pace with default options and base model on two CPU cores, until a run has been measured."""
    reads: str = TRAIN_FILE
    """The file of a snapshot whose rows it passes over."""
    cure: str = ""
    """What fills that file."""
    models: float = 1.0
    """Models of the base's size in memory at once."""


KINDS: Mapping[str, Kind] = {
    "bert": Kind("BERT arm", "learns labels: the fast arm that answers every text", "bert", 30.0),
    "sft": Kind("LLM arm (SFT)", "learns label lines: the slower arm that knows more words", "llm", 3.0),
    "reward": Kind(
        "Reward model",
        "learns which of two answers people prefer; PPO needs one, and nothing is served of it",
        "llm",
        1.5,
        PAIRS_FILE,
        "corrections do: each says that one answer is better than another",
    ),
    "ppo": Kind(
        "PPO on the LLM arm",
        "experimental, not yet shown to improve an arm: the LLM writes label lines, a reward model judges them; slow",
        "llm",
        0.3,
        models=3.0,
    ),
    "label_ppo": Kind(
        "Label PPO",
        "reinforcement from right and wrong verdicts, with exact probabilities instead of sampling",
        None,
        20.0,
        REWARDS_FILE,
        "answers do, also those that only say right or wrong",
    ),
    "kto": Kind(
        "KTO on the LLM arm",
        "learns from answers marked right or wrong as they are, without pairs",
        "llm",
        1.0,
        KTO_FILE,
        "answers do, also those that only say right or wrong",
    ),
    "pipeline": Kind(
        "The whole chain",
        "BERT, SFT, reward and reinforcement after each other; each stage must hold up, and is skipped without data",
        None,
        2.0,
        models=3.0,
    ),
}


def list_kinds() -> Mapping[str, Kind]:
    """Those that can be launched, in the order in which they are offered. Rules are published from their own page."""
    return {name: kind for name, kind in KINDS.items() if name in OPTIONS}


def makes_release(kind: str) -> bool:
    """Whether a run of this kind is judged and may serve."""
    return kind not in MAKES_NO_BUNDLE


def title_of(kind: str) -> str:
    return KINDS[kind].title if kind in KINDS else kind.replace("_", " ").capitalize()
