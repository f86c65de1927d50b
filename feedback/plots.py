"""Plots as values that a template draws as SVG; no library, no script. Coordinates are in the units of the view box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.utils.text import slugify

WIDTH, HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 180.0, 12.0, 28.0
"""Margins: numbers stand on the left, the names of the lines at their ends on the right."""
MAX_POINTS = 240
LABEL_GAP = 15.0


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: str
    """As `<polyline points>` wants them."""
    label_y: float
    last: float
    """The newest value."""
    end_x: float
    end_y: float
    number: int
    """Which of the palette's line styles it has, from 1."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    description: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    table: Sequence[tuple[int, Sequence[str]]]
    """For "show numbers": step, then one cell a line, newest first."""
    names: Sequence[str]
    heading: str = ""
    """Above it, where several charts stand below each other."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM
    top: float = TOP

    @property
    def key(self) -> str:
        """For ids: a page may hold several charts."""
        return slugify(self.title)


def draw_series(
    points: Iterable[Mapping[str, Any]], names: Sequence[str], *, title: str, heading: str = ""
) -> Chart | None:
    """Of `{"step", "name", "value"}` points, the named series; None while no series has two points."""
    points = list(points)
    series = {name: [(int(p["step"]), float(p["value"])) for p in points_of(points, name)] for name in names}
    series = {name: row for name, row in series.items() if row}
    if not any(len(row) > 1 for row in series.values()):
        return None
    steps = [step for row in series.values() for step, _ in row]
    values = [value for row in series.values() for _, value in row]
    scale = _Scale(min(steps), max(steps), min(values), max(values))
    lines = _spread_labels(
        [scale.line(name, row, number) for number, (name, row) in enumerate(series.items(), start=1)]
    )
    parts = [f"{name} went from {row[0][1]:.3g} to {row[-1][1]:.3g}" for name, row in series.items()]
    return Chart(
        title=title,
        description=f"Steps {min(steps)} to {max(steps)}: " + "; ".join(parts) + ".",
        lines=lines,
        x_ticks=[Tick(scale.x(step), f"{step}") for step in sorted({min(steps), max(steps)})],
        y_ticks=[Tick(scale.y(value), f"{value:.3g}") for value in scale.levels()],
        table=_tabulate(series),
        names=list(series),
        heading=heading,
    )


def points_of(points: Iterable[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [point for point in points if point.get("name") == name]


@dataclass(frozen=True, slots=True)
class _Scale:
    first: int
    last: int
    low: float
    high: float

    def x(self, step: int) -> float:
        share = (step - self.first) / ((self.last - self.first) or 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def levels(self) -> list[float]:
        if self.high == self.low:
            return [self.low]
        return [self.low, (self.low + self.high) / 2, self.high]

    def line(self, name: str, row: Sequence[tuple[int, float]], number: int) -> Line:
        # A long run is thinned; its first and its newest point stay.
        stride = -(-len(row) // MAX_POINTS)
        shown = [*row[:-1:stride], row[-1]]
        points = " ".join(f"{self.x(step)},{self.y(value)}" for step, value in shown)
        step, value = row[-1]
        return Line(name, points, self.y(value), value, self.x(step), self.y(value), number)


def _spread_labels(lines: Sequence[Line]) -> list[Line]:
    """The same lines with labels that do not cover each other."""
    placed: list[Line] = []
    for line in sorted(lines, key=lambda line: line.label_y):
        y = max(line.label_y, placed[-1].label_y + LABEL_GAP) if placed else line.label_y
        placed.append(replace(line, label_y=y))
    # Pushed apart they may have left the chart downwards, where the steps stand.
    lowest = HEIGHT - BOTTOM
    for place in range(len(placed) - 1, -1, -1):
        placed[place] = replace(placed[place], label_y=min(placed[place].label_y, lowest))
        lowest = placed[place].label_y - LABEL_GAP
    return placed


def _tabulate(series: Mapping[str, Sequence[tuple[int, float]]]) -> list[tuple[int, list[str]]]:
    by_step: dict[int, dict[str, float]] = {}
    for name, row in series.items():
        for step, value in row:
            by_step.setdefault(step, {})[name] = value
    newest = sorted(by_step, reverse=True)[:100]
    return [
        (step, [f"{by_step[step][name]:.4g}" if name in by_step[step] else "" for name in series]) for step in newest
    ]
