"""The plots of an ablation as SVG, drawn by matplotlib; no display, no pyplot, no torch.

Each is drawn in the light colours of the house. `Plot.svg` is for a page: its colours are the page's own variables and
nothing in it is inline style, which the pages' content policy forbids. `Plot.standalone` is a file for a model card.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "heed",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    }
)

SOFT, GRID, FIRST, SECOND = "#4a5a57", "#d5dcda", "#0b5c5c", "#8a5a00"
VARIABLES: Mapping[str, str] = {SOFT: "--ink-soft", GRID: "--line", FIRST: "--line-1", SECOND: "--line-2"}
"""Colour -> the variable of the pages with this light value."""
PAPER = "#ffffff"
WIDTH_IN = 5.0
ROW_IN = 0.24
LEAST_COVERAGE = 0.05
"""Of a selective curve: the accuracy of the first few answers jumps about."""
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
DROPPED = (f"{{{SVG}}}metadata", f"{{{SVG}}}style")
REFERENCE = re.compile(r"#([pm][0-9a-f]{10})\b")
"""To a clip path or a marker, as matplotlib names them."""
LONG_NUMBER = re.compile(r"(\d+\.\d\d)\d+")
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


@dataclass(frozen=True, slots=True)
class Plot:
    """`description` says in words what the picture shows."""

    name: str
    title: str
    description: str
    svg: str
    standalone: str


@dataclass(frozen=True, slots=True)
class Dot:
    label: str
    value: float
    low: float
    high: float
    colour: str = SOFT


Panel = tuple[str, Sequence[Dot]]


def draw_ablation(report: Mapping[str, Any]) -> list[Plot]:
    """Those for which the report has figures."""
    plots = (draw_f1(report), draw_risk(report), draw_selective(report), draw_suite(report))
    return [plot for plot in plots if plot is not None]


def write_plots(folder: Path, plots: Sequence[Plot]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (folder / f"{plot.name}.svg").write_text(plot.standalone, encoding="utf-8")


def draw_f1(report: Mapping[str, Any]) -> Plot | None:
    whole = report["parts"][0]["configurations"]
    panels = [
        (
            f"{name}, {_rows(whole, name)} rows",
            _dots(report, {key: item["dimensions"][name]["macro_f1"] for key, item in whole.items()}),
        )
        for name in report["dimensions"]
    ]
    return _draw_dots("f1", "Macro-F1 of every configuration", "with 95 % bootstrap intervals", panels)


def _rows(whole: Mapping[str, Any], name: str) -> int:
    return max(int(item["dimensions"][name]["rows"]) for item in whole.values())


def draw_risk(report: Mapping[str, Any]) -> Plot | None:
    """Missed risk and false alarms: on the labelled rows, and on the assertions of the suite where there is one."""
    places = [("labelled rows", report["parts"][0]["configurations"])]
    if report.get("suite"):
        places.append(("suite", report["suite"]["configurations"]))
    panels = [
        (f"{words}, {place}", _dots(report, {name: _as_estimate(item[key]) for name, item in found.items()}))
        for place, found in places
        for key, words in (("missed_risk", "missed risk"), ("false_alarm", "false alarms"))
    ]
    return _draw_dots("risk", "Missed risk and false alarms", "as shares with 95 % Wilson intervals", panels)


def draw_suite(report: Mapping[str, Any]) -> Plot | None:
    """Pass rate of the hybrid on each functionality."""
    found = ((report.get("suite") or {}).get("configurations") or {}).get(report["hybrid"])
    if found is None:
        return None
    dots = [
        Dot(name.replace("_", " "), rate["share"], rate["low"], rate["high"], FIRST)
        for name, rate in sorted(found["functionalities"].items())
    ]
    title = f"Pass rate of each functionality, {_title(report, report['hybrid'])}"
    return _draw_dots("suite", title, "with 95 % Wilson intervals", [("share passed", dots)])


def _dots(report: Mapping[str, Any], estimates: Mapping[str, Mapping[str, Any]]) -> list[Dot]:
    """In the order of the report's list: JSON objects forget theirs."""
    return [
        Dot(str(listed["title"]), item["value"], item["low"], item["high"], _colour(report, listed["name"]))
        for listed in report["configurations"]
        if (item := estimates.get(listed["name"])) is not None and item["value"] is not None
    ]


def _as_estimate(rate: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": rate["share"], "low": rate["low"], "high": rate["high"]}


def _title(report: Mapping[str, Any], name: str) -> str:
    return next(str(item["title"]) for item in report["configurations"] if item["name"] == name)


def _colour(report: Mapping[str, Any], name: str) -> str:
    return FIRST if name == report["hybrid"] else SECOND if name == "bag_of_words" else SOFT


def _draw_dots(name: str, title: str, intervals: str, panels: Sequence[Panel]) -> Plot | None:
    """One row a dot, panels below each other on one scale from 0 to 1."""
    panels = [(words, dots) for words, dots in panels if dots]
    if not panels:
        return None
    heights = [len(dots) * ROW_IN for _, dots in panels]
    figure = Figure(figsize=(WIDTH_IN, sum(heights) + 0.55 * len(panels) + 0.1), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (words, dots) in zip(grid[:, 0], panels, strict=True):
        axes.set_title(words, color=SOFT)
        for place, dot in enumerate(dots):
            spread = [[max(dot.value - dot.low, 0)], [max(dot.high - dot.value, 0)]]
            axes.errorbar(dot.value, place, xerr=spread, fmt="o", ms=5, lw=1.6, color=dot.colour)
        axes.set_yticks(range(len(dots)), [f"{dot.label}  {dot.value:.2f}" for dot in dots])
        axes.set_ylim(len(dots) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        _calm(axes)
    said = "; ".join(
        f"{words}: " + ", ".join(f"{dot.label} {dot.value:.2f} ({dot.low:.2f} to {dot.high:.2f})" for dot in dots)
        for words, dots in panels
    )
    return _finish(figure, name, title, f"{title}, {intervals}. {said}.")


def draw_selective(report: Mapping[str, Any]) -> Plot | None:
    """Accuracy of the risk label when only the surest answers are taken."""
    whole = report["parts"][0]["configurations"]
    shown = [name for name in ("bert", "llm", report["hybrid"], "bag_of_words") if name in whole]
    curves = {
        name: [point for point in whole[name]["curve"]["points"] if point[0] >= LEAST_COVERAGE]
        for name in shown
        if whole[name].get("curve")
    }
    if not curves:
        return None
    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    low = min(accuracy for points in curves.values() for _, accuracy in points)
    styles = {"bert": "--", "llm": ":"}
    for name, points in curves.items():
        colour = _colour(report, name)
        axes.plot(*zip(*points, strict=True), styles.get(name, "-"), color=colour, lw=1.8)
    for y, name in _spread({name: points[-1][1] for name, points in curves.items()}, 0.07 * (1.02 - low)):
        axes.text(1.02, y, _title(report, name), color=_colour(report, name), va="center", weight="bold")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(0, low - 0.05), 1.02)
    axes.set_xlabel("share of texts answered, the surest first", color=SOFT)
    axes.set_title("accuracy of the risk label among them", color=SOFT)
    _calm(axes)
    axes.grid(axis="y", color=GRID)
    said = "; ".join(f"{_title(report, name)} {points[-1][1]:.2f} of all" for name, points in curves.items())
    title = "Selective accuracy of risk"
    return _finish(figure, "selective", title, f"{title}: how right the surest answers are. {said}.")


def _spread(ends: Mapping[str, float], gap: float) -> list[tuple[float, str]]:
    """Heights for the labels of lines that end close together, from the lowest up."""
    placed: list[tuple[float, str]] = []
    for name, y in sorted(ends.items(), key=lambda item: item[1]):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, name))
    return placed


def _calm(axes: Axes) -> None:
    axes.tick_params(length=0, colors=SOFT)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)


def _finish(figure: Figure, name: str, title: str, description: str) -> Plot:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(drawn.getvalue())
    _clean(root, f"plot-{name}-")
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    ids = f"plot-{name}-title", f"plot-{name}-description"
    root.attrib |= {"class": "plot", "role": "img", "aria-labelledby": " ".join(ids)}
    for place, (tag, words, key) in enumerate((("title", title, ids[0]), ("desc", description, ids[1]))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": key})
        element.text = words
        root.insert(place, element)
    svg = _use_variables(ElementTree.tostring(root, encoding="unicode"))
    root.insert(2, ElementTree.Element(f"{{{SVG}}}rect", {"width": "100%", "height": "100%", "fill": PAPER}))
    root.set("font-family", "system-ui, sans-serif")
    return Plot(name, title, description, svg, ElementTree.tostring(root, encoding="unicode") + "\n")


def _clean(root: ElementTree.Element, prefix: str) -> None:
    """Styles become attributes, ids unique on a page with several plots, and nothing stays that draws nothing."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in DROPPED or (child.tag == f"{{{SVG}}}g" and not len(child)):
                parent.remove(child)
    used = {name for element in root.iter() for value in element.attrib.values() for name in REFERENCE.findall(value)}
    for element in root.iter():
        for rule in filter(None, element.attrib.pop("style", "").split(";")):
            key, _, value = rule.partition(":")
            # The family is the page's.
            if key.strip() != "font-family":
                element.set(key.strip(), value.strip())
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
        if element.attrib.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        for key, value in element.attrib.items():
            value = f"{prefix}{value}" if key == "id" else REFERENCE.sub(lambda found: f"#{prefix}{found[1]}", value)
            element.set(key, value if key == "id" else LONG_NUMBER.sub(r"\1", value))


def _use_variables(svg: str) -> str:
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
