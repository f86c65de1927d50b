"""Contrast of the tokens that carry text, by the formula of WCAG 2.2, in both themes; no colour elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSS = Path(__file__).resolve().parents[3] / "static" / "css"
TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", (CSS / "variables.css").read_text()
    )
}

TEXT_PAIRS = [
    ("ink", "ground"), ("ink", "surface"), ("ink", "raised"), ("ink", "accent-soft"),
    ("ink-soft", "ground"), ("ink-soft", "surface"), ("ink-soft", "raised"), ("ink-soft", "accent-soft"),
    ("accent", "ground"), ("accent", "surface"), ("accent", "raised"),
    ("accent-ink", "accent"), ("accent-soft-ink", "accent-soft"),
    ("risk-low-ink", "risk-low"), ("risk-medium-ink", "risk-medium"), ("risk-high-ink", "risk-high"),
    ("late-ink", "ground"), ("late-ink", "surface"), ("late-ink", "raised"),
    ("good-ink", "surface"), ("good-ink", "raised"),
    ("line-1", "surface"), ("line-2", "surface"), ("line-3", "surface"), ("line-4", "surface"),
]  # fmt: skip
JUDGED_PAIRS = [("text", "surface"), ("text", "mark"), ("text", "mark-block"), ("text", "raised")]
EDGE_PAIRS = [("line-strong", "surface"), ("accent", "surface"), ("bar", "surface"), ("mark-line", "surface")]


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def ratios(pair: tuple[str, str]) -> list[float]:
    return [contrast(TOKENS[pair[0]][theme], TOKENS[pair[1]][theme]) for theme in (0, 1)]


def test_formula_on_the_known_extremes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("pair", TEXT_PAIRS, ids="/".join)
def test_text_has_contrast_aa(pair: tuple[str, str]) -> None:
    assert min(ratios(pair)) >= 4.5, ratios(pair)


@pytest.mark.parametrize("pair", JUDGED_PAIRS, ids="/".join)
def test_judged_text_has_contrast_aaa(pair: tuple[str, str]) -> None:
    assert min(ratios(pair)) >= 7.0, ratios(pair)


@pytest.mark.parametrize("pair", EDGE_PAIRS, ids="/".join)
def test_edges_of_controls_have_contrast(pair: tuple[str, str]) -> None:
    assert min(ratios(pair)) >= 3.0, ratios(pair)


def test_no_other_file_names_a_colour() -> None:
    found = {
        path.name: colours
        for path in CSS.glob("*.css")
        if path.name != "variables.css"
        and (colours := re.findall(r"#[0-9a-fA-F]{3,8}\b|\b(?:rgb|hsl|oklch)a?\(", path.read_text()))
    }
    assert found == {}


def test_every_used_variable_is_defined() -> None:
    defined = set(re.findall(r"--[a-z0-9-]+(?=:)", (CSS / "variables.css").read_text()))
    used = {name for path in CSS.glob("*.css") for name in re.findall(r"var\((--[a-z0-9-]+)\)", path.read_text())}
    assert used - defined == set()
