from pathlib import Path

import pytest

from classifier.errors import RuleError
from classifier.rules import RuleSet

BLOCK = 'id = "r1"\nkind = "block"\nfloor = "high"\n'
ALLOW = 'id = "r1"\nkind = "allow"\nliterals = ["x"]\n'


def load(tmp_path: Path, text: str) -> RuleSet:
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    return RuleSet.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"[[rule]]\n{BLOCK}expressions = ['a(?=b)']", "refused by RE2.*lookahead.*linear"),
        (f"[[rule]]\n{BLOCK}expressions = ['(?<!a)b']", "refused by RE2.*lookbehind.*linear"),
        (f"[[rule]]\n{BLOCK}expressions = ['(a)\\1']", "refused by RE2.*back-reference"),
        (f"[[rule]]\n{BLOCK}expressions = ['a++']", "refused by RE2.*never goes back"),
        (f"[[rule]]\n{BLOCK}expressions = ['a{{1001}}']", "refused by RE2.*up to 1000"),
        (f"[[rule]]\n{BLOCK}expressions = ['(a']", "refused by RE2.*missing"),
        (f"[[rule]]\n{BLOCK}expressions = ['a*']", "empty text"),
        (f"[[rule]]\n{BLOCK}expressions = ['{{nobody}}']", "unknown macro"),
        (f"[[rule]]\n{BLOCK}literals = ['']", "no pattern"),
        (f"[[rule]]\n{BLOCK}literals = 'abc'", "literals has the wrong type"),
        (f"[[rule]]\n{BLOCK}literals = ['a']\nflor = 1", "unknown field 'flor'"),
        ('[[rule]]\nid = "r1"\nkind = "block"\nliterals = ["a"]', "needs a floor"),
        ('[[rule]]\nid = "r1"\nliterals = ["a"]', "kind is missing"),
        ('[[rule]]\nid = "r1"\nkind = "bloc"\nliterals = ["a"]', "Use block, allow or hint"),
        ('[[rule]]\nid = "r1"\nkind = "block"\nfloor = "huge"\nliterals = ["a"]', "'huge', expected one of"),
        (f"[[rule]]\n{BLOCK}literals = ['a']\n[[rule]]\n{BLOCK}literals = ['b']", "exists already in own.toml"),
        (f"[[rule]]\n{ALLOW}", "needs labels"),
        (
            f'[[rule]]\n{ALLOW}labels = {{ emotion = "stress", sentiment = "neutral", stress = "low", risk = "high" }}',
            "none or low",
        ),
        (f'[[rule]]\n{ALLOW}labels = {{ risk = "none" }}', "emotion is missing"),
        (f"[[rule]]\n{BLOCK}literals = ['a']\nhits = 1", "unknown field 'hits'"),
        ("[earned.r1]\nhits = 1\nconfirmed = 2\nof = 'x'", "between 0 and hits"),
        ("[earned.r1]\nhits = 1", "needs hits, confirmed and of"),
        (f"[[rule]]\n{BLOCK}literals = ['a']\nbuiltin = true", "needs a rationale"),
        ("[[rule]\n", "not readable as TOML"),
        ("[rule]\nid = 'a'", "rule has the wrong form"),
        ("[rules]\nid = 'a'", "unknown table 'rules'"),
        ("[[scope.negated.before]]\nmax_words = 1", "no triggers"),
        ("[[scope.negated.before]]\n[scope.negated.before.triggers]\nnot = ''", "needs a phrase and an example"),
        ("[spelling.symbols]\nab = 'a'", "single characters"),
        ("[spelling.aliases]\nab = 1", "must be strings"),
    ],
)
def test_refuses_malformed_file_with_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(RuleError, match=reason) as caught:
        load(tmp_path, text)
    assert "own.toml" in str(caught.value)


def test_names_the_rule_and_the_number_of_the_expression(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"own\.toml: rule r1: expression 2"):
        load(tmp_path, f"[[rule]]\n{BLOCK}expressions = ['good', '(bad']")


def test_refuses_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no rules file"):
        RuleSet.load(tmp_path)


def test_macro_of_another_file_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[macros]\nwho = '(?:i|{plural})'\nplural = 'we'\n", encoding="utf-8")
    rules = load(tmp_path, f"[[rule]]\n{BLOCK}expressions = ['{{who}} jump{{1}}']")
    assert rules.apply("We jump").risk_floor == "high"


def test_failing_example_is_reported(tmp_path: Path) -> None:
    rules = load(
        tmp_path, f"[[rule]]\n{BLOCK}literals = ['boom']\nexamples = ['boom', 'bang']\ncounterexamples = ['boom']"
    )
    assert [item.problem for item in rules.check_examples()] == ["example 2 does not fire", "counterexample 1 fires"]


def test_literal_needs_word_boundaries(tmp_path: Path) -> None:
    rules = load(tmp_path, f"[[rule]]\n{BLOCK}literals = ['die']")
    assert rules.apply("the diet").risk_floor is None
    assert rules.apply("(die)").risk_floor == "high"
