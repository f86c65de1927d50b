"""What verdicts say beyond labels: which answers were wrong, and by how much. Rows for kto, reward and label_ppo.

A run dir holds them beside the label rows, as `data/kto.jsonl`, `data/pairs.jsonl` and `data/rewards.jsonl`; a file is
missing where no verdict gave such a row.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from classifier.errors import SchemaError
from classifier.schema import load_schema
from training.corpus.rows import RowError, iter_jsonl

KTO_FILE = "kto.jsonl"
PAIRS_FILE = "pairs.jsonl"
REWARDS_FILE = "rewards.jsonl"


@dataclass(frozen=True, slots=True)
class KtoRow:
    """A whole label line and whether it is wanted for this text."""

    id: str
    text: str
    labels: Mapping[str, str]
    """Every dimension."""
    is_desirable: bool
    weight: float = 1.0

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> Self:
        """Raises RowError that begins with `where`."""
        labels = _read_line(raw, "labels", where)
        return cls(_read(raw, "id", where), _read(raw, "text", where), labels, *_read_rest(raw, "is_desirable", where))


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two label lines of one text: the first is better than the second."""

    id: str
    text: str
    chosen: Mapping[str, str]
    rejected: Mapping[str, str]
    margin: float = 1.0
    """How much better, by the schema's costs summed over the dimensions that differ; 0 = no more is known."""
    weight: float = 1.0
    """Share of the voices that say so: 1 minus the label smoothing of the pair."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> Self:
        """Raises RowError that begins with `where`."""
        chosen, rejected = (_read_line(raw, name, where) for name in ("chosen", "rejected"))
        return cls(
            _read(raw, "id", where), _read(raw, "text", where), chosen, rejected, *_read_rest(raw, "margin", where)
        )


@dataclass(frozen=True, slots=True)
class RewardRow:
    """The reward of single answers: dimension -> value -> reward. What is absent is unknown, not 0."""

    id: str
    text: str
    rewards: Mapping[str, Mapping[str, float]]
    weight: float = 1.0

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> Self:
        """Raises RowError that begins with `where`."""
        try:
            rewards = {
                name: {value: float(row[value]) for value in sorted(row, key=load_schema()[name].index)}
                for name, row in raw["rewards"].items()
            }
        except (KeyError, SchemaError, TypeError, ValueError, AttributeError) as error:
            raise RowError(f"{where}: rewards must map dimensions to values to numbers ({error})") from error
        weight = float(raw.get("weight", 1.0))
        return cls(_read(raw, "id", where), _read(raw, "text", where), rewards, weight)


T = TypeVar("T", KtoRow, PairRow, RewardRow)


def write_preferences(path: Path, rows: Iterable[KtoRow | PairRow | RewardRow]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) + "\n")


def read_preferences(path: Path, form: type[T]) -> list[T]:
    """Empty where the file is missing. Raises RowError."""
    return [form.from_dict(raw, where) for where, raw in iter_jsonl(path)] if path.is_file() else []


def _read(raw: Mapping[str, Any], name: str, where: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where}: {name} must be a string with something in it")
    return value


def _read_line(raw: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    line = raw.get(name)
    if not isinstance(line, Mapping):
        raise RowError(f"{where}: {name} must map every dimension to a value")
    for dimension in load_schema().dimensions:
        if line.get(dimension.name) not in dimension.names:
            raise RowError(f"{where}: {name}.{dimension.name} must be one of {', '.join(dimension.names)}")
    return {dimension.name: str(line[dimension.name]) for dimension in load_schema().dimensions}


def _read_rest(raw: Mapping[str, Any], name: str, where: str) -> tuple[Any, float]:
    if name not in raw:
        raise RowError(f"{where}: lacks {name!r}")
    value = raw[name]
    return (value if isinstance(value, bool) else float(value)), float(raw.get("weight", 1.0))
