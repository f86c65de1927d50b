"""What is said of rules files that are no rules version."""

from __future__ import annotations

import pytest

from classifier.rules import DATA_DIR, RuleSet
from classifier.rules.drafts import Problem, check_texts

BLOCK = """\
[[rule]]
id = "b.one"
kind = "block"
floor = "high"
literals = ["blockword"]
examples = ["blockword"]
counterexamples = ["a word"]
"""
ALLOW = """\
[[rule]]
id = "a.one"
kind = "allow"
literals = ["allowword"]
labels = { emotion = "positive", sentiment = "positive", stress = "low", risk = "none" }
builtin = true
rationale = "A word that only tests use."
"""


def check(*texts: str, base: str = "") -> list[Problem]:
    import tomllib

    files = {f"file_{number}.toml": text for number, text in enumerate(texts, 1)}
    return check_texts(files, RuleSet({"base.toml": tomllib.loads(base)}) if base else None)


def test_the_shipped_rules_have_no_problem() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in DATA_DIR.glob("*.toml")}
    assert check_texts(texts, RuleSet.load()) == []


def test_every_problem_is_told_at_once_each_at_its_place() -> None:
    wrong = f"{BLOCK}expressions = ['a(?=b)']\n[[rule]]\nid = \"h\"\nkind = \"hint\"\nliterals = ['x']\nflor = 1\n"
    found = check(wrong, "[[rule]\n")
    assert [(item.file, item.rule, item.line) for item in found] == [
        ("file_2.toml", "", 1),
        ("file_1.toml", "b.one", 2),
        ("file_1.toml", "h", 10),
    ]
    assert "lookahead" in found[1].sentence
    assert "unknown field 'flor'" in found[2].sentence


def test_examples_are_tried_once_the_rules_are_sound() -> None:
    found = check(BLOCK.replace('examples = ["blockword"]', 'examples = ["another"]', 1))
    assert [(item.rule, item.sentence.split(":")[0]) for item in found] == [("b.one", "example 1 does not fire")]


def test_no_sentence_quotes_an_example() -> None:
    for item in check(BLOCK.replace('["a word"]', '["blockword again"]')):
        assert "again" not in item.sentence


@pytest.mark.parametrize("text", ["I went to the store", "I am unstoppable"])
def test_a_floor_on_one_of_the_five_statements_is_a_problem(text: str) -> None:
    found = check(f"[[rule]]\nid = 'b'\nkind = 'block'\nfloor = 'medium'\nliterals = ['{text.lower()}']\n")
    assert len(found) == 1
    assert "of the five gets the floor medium" in found[0].sentence
    assert "(by b)" in found[0].sentence


def test_a_doubled_id_names_both_files() -> None:
    (found,) = check(BLOCK, BLOCK)
    assert "exists already in file_1.toml" in found.sentence


def test_counts_are_no_part_of_a_draft() -> None:
    (found,) = check(f'{BLOCK}[earned."b.one"]\nhits = 9\nconfirmed = 9\nof = "x"\n')
    assert "counted from annotations" in found.sentence


class TestVouching:
    def test_is_kept_by_a_rule_that_stays_as_it_is(self) -> None:
        assert check(BLOCK + ALLOW, base=ALLOW) == []

    def test_is_kept_by_a_rule_that_matches_less(self) -> None:
        assert check(BLOCK + ALLOW + 'unless = ["but"]\n', base=ALLOW) == []

    def test_is_refused_to_a_new_rule(self) -> None:
        (found,) = check(BLOCK + ALLOW)
        assert "builtin is for rules that ship with Heed" in found.sentence

    def test_is_refused_to_a_changed_rule(self) -> None:
        assert len(check(BLOCK + ALLOW.replace('["allowword"]', '["allowword", "more"]'), base=ALLOW)) == 1

    def test_is_refused_to_a_rule_with_fewer_words_that_silence_it(self) -> None:
        assert len(check(BLOCK + ALLOW, base=ALLOW + 'unless = ["but"]\n')) == 1
