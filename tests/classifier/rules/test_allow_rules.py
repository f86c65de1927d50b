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


FINE = f'[[rule]]\nid = "a"\nkind = "allow"\nliterals = ["fine day"]\nlabels = {SAFE}\n'


def earned(hits: int, confirmed: int, of: str) -> str:
    return f'[earned.a]\nhits = {hits}\nconfirmed = {confirmed}\nof = "{of}"\n'


@pytest.mark.parametrize(
    ("hits", "confirmed", "active"),
    [(0, 0, False), (34, 34, False), (35, 35, True), (52, 51, False), (53, 52, True), (100, 94, False)],
)
def test_allow_rule_must_earn_it(tmp_path: Path, hits: int, confirmed: int, active: bool) -> None:
    fingerprint = load(tmp_path, FINE).rules[0].fingerprint
    rules = load(tmp_path, FINE + earned(hits, confirmed, fingerprint))
    assert rules.rules[0].precision.mean == pytest.approx((confirmed + 1) / (hits + 2), abs=1e-12)
    assert (rules.apply("Fine day!").forced is not None) is active


def test_what_another_form_of_the_rule_earned_does_not_count(tmp_path: Path) -> None:
    fingerprint = load(tmp_path, FINE).rules[0].fingerprint
    rules = load(tmp_path, FINE.replace('["fine day"]', '["fine day", "day"]') + earned(99, 99, fingerprint))
    assert rules.apply("Fine day!").forced is None
    assert rules.rules[0].hits == 0


def test_rule_on_trial_is_seen_and_decides_nothing(tmp_path: Path) -> None:
    verdict = load(tmp_path, FINE).apply("Fine day!")
    assert verdict.forced is None
    assert [(item.rule, item.kind, item.scope) for item in verdict.evidence] == [("a", "allow", "trial")]


def test_rule_on_trial_does_not_keep_another_from_its_force(tmp_path: Path) -> None:
    other = (
        f'[[rule]]\nid = "b"\nkind = "allow"\nliterals = ["fine day"]\nlabels = {SAFE}\nbuiltin = true\nrationale = "t"'
    )
    verdict = load(tmp_path, f"{FINE}{other}\n").apply("fine day")
    assert verdict.forced is not None
    assert {(item.rule, item.scope) for item in verdict.evidence} == {("a", "trial"), ("b", "plain")}


def test_disabled_rule_is_applied_to_no_text(tmp_path: Path) -> None:
    rules = load(tmp_path, f'{FINE}disabled = true\nbuiltin = true\nrationale = "t"\nexamples = ["not at all"]\n')
    assert rules.apply("Fine day!").evidence == ()
    assert list(rules.check_examples()) == []


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
