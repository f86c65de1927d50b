"""The label schema as Python values, read once from `schema.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from classifier.errors import SchemaError

SCHEMA_PATH = Path(__file__).with_name("schema.toml")

GOLDEN_STATEMENTS: tuple[tuple[str, str, str], ...] = (
    ("I will marry her", "positive", "none"),
    ("I am unstoppable", "positive", "none"),
    ("I'm sick of people wasting my time", "stress", "low"),
    ("I want to kill myself", "self_harm_high", "high"),
    ("I went to the store", "neutral", "none"),
)
"""Text, emotion, risk: must never come out wrong, in any release."""


@dataclass(frozen=True, slots=True)
class Value:
    name: str
    key: str
    description: str
    guideline: str


@dataclass(frozen=True, slots=True)
class Dimension:
    name: str
    question: str
    key: str
    values: tuple[Value, ...]
    cost: Mapping[str, Mapping[str, float]]
    """`cost[true][answered]`; 0 on the diagonal."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.values)

    def index(self, name: str) -> int:
        """Severity rank of a value, 0 first. Raises SchemaError for an unknown one."""
        try:
            return self.names.index(name)
        except ValueError:
            raise SchemaError(f"{self.name} is {name!r}, expected one of {', '.join(self.names)}") from None


@dataclass(frozen=True, slots=True)
class Schema:
    version: str
    dimensions: tuple[Dimension, ...]

    def __getitem__(self, name: str) -> Dimension:
        for dimension in self.dimensions:
            if dimension.name == name:
                return dimension
        raise SchemaError(f"unknown dimension {name!r}, expected one of {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions)

    def check_labels(self, labels: Mapping[str, str], *, partial: bool = False) -> dict[str, str]:
        """The labels in schema order. Raises SchemaError naming the field, its value and what is allowed."""
        unknown = set(labels) - set(self.names)
        if unknown:
            raise SchemaError(f"unknown dimension {sorted(unknown)[0]!r}, expected one of {', '.join(self.names)}")
        checked: dict[str, str] = {}
        for dimension in self.dimensions:
            if dimension.name not in labels:
                if partial:
                    continue
                raise SchemaError(f"{dimension.name} is missing")
            value = labels[dimension.name]
            if not isinstance(value, str):
                raise SchemaError(f"{dimension.name} must be a string, one of {', '.join(dimension.names)}")
            dimension.index(value)
            checked[dimension.name] = value
        return checked

    def line(self, labels: Mapping[str, str]) -> str:
        """`emotion: positive, sentiment: positive, stress: low, risk: none`; only the given dimensions."""
        checked = self.check_labels(labels, partial=True)
        return ", ".join(f"{name}: {value}" for name, value in checked.items())

    def parse_line(self, line: str) -> dict[str, str]:
        """Inverse of `line`. Raises SchemaError for a malformed part, an unknown label or a dimension given twice."""
        labels: dict[str, str] = {}
        for part in line.split(","):
            name, separator, value = part.partition(":")
            name, value = name.strip().lower(), value.strip().lower()
            if not separator:
                raise SchemaError(f"{part.strip()!r} is not of the form 'dimension: value'")
            if name in labels:
                raise SchemaError(f"{name} is given twice")
            labels[name] = value
        return self.check_labels(labels, partial=True)

    def is_at_least(self, dimension: str, value: str, floor: str) -> bool:
        """Whether a value is as severe as `floor` or more."""
        return self[dimension].index(value) >= self[dimension].index(floor)


def parse_schema(text: str) -> Schema:
    """Read a schema from TOML. Raises SchemaError naming what is missing."""
    try:
        raw = tomllib.loads(text)
        dimensions = tuple(
            Dimension(
                name=item["name"],
                question=item["question"],
                key=item["key"],
                values=tuple(Value(**value) for value in item["value"]),
                cost=raw["cost"][item["name"]],
            )
            for item in raw["dimension"]
        )
        schema = Schema(version=raw["version"], dimensions=dimensions)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SchemaError(f"the label schema is malformed: {error}") from error
    for dimension in schema.dimensions:
        for name in dimension.names:
            missing = set(dimension.names) - {name} - set(dimension.cost.get(name, {}))
            if missing:
                raise SchemaError(f"cost.{dimension.name}.{name} lacks {', '.join(sorted(missing))}")
    return schema


@cache
def load_schema() -> Schema:
    """The schema this version of the project ships."""
    return parse_schema(SCHEMA_PATH.read_text(encoding="utf-8"))
