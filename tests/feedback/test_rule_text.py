"""A rule in a file, read as fields and written back."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from difflib import ndiff
from pathlib import Path

import pytest

from feedback.errors import InvalidInput
from feedback.services.rule_text import RuleFields, list_rules, remove_rule, write_rule

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "classifier" / "rules" / "data").glob("*.toml"))
FILE = """\
# A heading.
distress = ["alone"]

[[rule]]
id = "one"  # first
kind = "hint"
literals = ["a", "b"]
expressions = ['\\bx\\b']

# Between.
[[rule]]
id = "two"
kind = "hint"
literals = ["c"]
own_field = 1
"""


def lines_changed(before: str, after: str) -> list[str]:
    return [line for line in ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_rule_saved_as_it_was_leaves_its_file_as_it_was(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for rule in list_rules(text):
        assert write_rule(text, rule, replaces=rule.id) == text, rule.id


def test_a_changed_field_changes_its_own_lines_only() -> None:
    one = list_rules(FILE)[0]
    after = write_rule(FILE, replace(one, literals=("a",), disabled=True), replaces="one")
    assert lines_changed(FILE, after) == ['- literals = ["a", "b"]', '+ literals = ["a"]', "+ disabled = true"]


def test_an_emptied_field_leaves_the_file() -> None:
    after = write_rule(FILE, replace(list_rules(FILE)[0], expressions=()), replaces="one")
    assert lines_changed(FILE, after) == ["- expressions = ['\\bx\\b']"]


@pytest.mark.parametrize(
    "item", ["\\bit's\\b", 'say "so"', "it's", "two\nlines", "\\d{1,3}", " with blanks ", "tab\t\\w", "\u200b", "ünï"]
)
def test_every_pattern_comes_back_as_it_was_typed(item: str) -> None:
    rule = RuleFields("new.one", "hint", literals=(item, "x" * 120), expressions=(item,), examples=(item,))
    after = write_rule(FILE, rule)
    assert list_rules(after)[-1] == rule
    assert after.startswith(FILE)
    tomllib.loads(after)


def test_a_rule_begins_an_empty_file() -> None:
    rule = RuleFields("new.one", "allow", labels={"risk": "none"}, max_words=3)
    assert list_rules(write_rule("", rule)) == [rule]


def test_a_removed_rule_leaves_the_others() -> None:
    after = remove_rule(FILE, "one")
    assert [rule.id for rule in list_rules(after)] == ["two"]
    assert "own_field = 1" in after


def test_a_field_that_the_form_does_not_know_stays() -> None:
    two = list_rules(FILE)[1]
    assert "own_field = 1" in write_rule(FILE, replace(two, literals=("d",)), replaces="two")


@pytest.mark.parametrize("text", ["[[rule]\n", "rule = 3\n"])
def test_a_file_that_cannot_be_edited_by_form_says_so(text: str) -> None:
    with pytest.raises(InvalidInput, match="as text"):
        write_rule(text, RuleFields("one", "hint"), replaces="one")
    assert list_rules(text) == []


def test_a_rule_that_is_gone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no longer in this file"):
        remove_rule(FILE, "three")
