from pathlib import Path

import pytest

from classifier.rules import RuleSet

SAFE = '{ emotion = "positive", sentiment = "positive", stress = "low", risk = "none" }'


def load(tmp_path: Path, text: str) -> RuleSet:
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    return RuleSet.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "I will marry her and kill myself",
        "I will marry her. I want to die",
        "I am unstoppable, nothing can keep me alive",
        "I went to the store for the last time",
        "I will marry her tonight in my grave",
    ],
)
def test_nothing_is_forced_where_more_is_said(rules: RuleSet, text: str) -> None:
    assert rules.apply(text).forced is None


@pytest.mark.parametrize(
    ("hits", "confirmed", "active"), [(0, 0, False), (17, 17, False), (18, 18, True), (40, 38, False)]
)
def test_allow_rule_must_earn_it(tmp_path: Path, hits: int, confirmed: int, active: bool) -> None:
    rules = load(
        tmp_path,
        f'[[rule]]\nid = "a"\nkind = "allow"\nliterals = ["fine day"]\nlabels = {SAFE}\n'
        f"hits = {hits}\nconfirmed = {confirmed}\n",
    )
    assert rules.rules[0].precision == pytest.approx((confirmed + 1) / (hits + 2), abs=1e-12)
    assert (rules.apply("Fine day!").forced is not None) is active


def test_hint_and_distress_word_silence_it(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        f"""
distress = ["alone"]
[[rule]]
id = "a"
kind = "allow"
expressions = ['fine day \\w+']
labels = {SAFE}
builtin = true
rationale = "test"
max_words = 3
[[rule]]
id = "h"
kind = "hint"
literals = ["pills"]
""",
    )
    assert rules.apply("fine day outside").forced is not None
    assert rules.apply("fine day alone").forced is None
    assert rules.apply("fine day pills").forced is None
    assert rules.apply("a fine day outside").forced is None
