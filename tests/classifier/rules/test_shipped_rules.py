from classifier.rules import RuleSet
from classifier.schema import GOLDEN_STATEMENTS


def test_every_rule_and_trigger_does_what_its_examples_say(rules: RuleSet) -> None:
    assert list(rules.check_examples()) == []


def test_every_rule_has_examples_and_every_decisive_one_counterexamples(rules: RuleSet) -> None:
    assert [rule.id for rule in rules.rules if not rule.examples] == []
    assert [rule.id for rule in rules.rules if rule.kind != "hint" and not rule.counterexamples] == []


def test_no_shipped_allow_rule_is_asleep(rules: RuleSet) -> None:
    assert [rule.id for rule in rules.rules if not rule.is_active] == []


def test_every_literal_finds_itself(rules: RuleSet) -> None:
    # A literal that the normaliser rewrites into something else could never fire.
    for rule in rules.rules:
        for literal in rule.literals:
            found = [item.rule for item in rules.apply(literal).evidence]
            assert rule.id in found, (rule.id, literal)


def test_decides_the_five_statements(rules: RuleSet) -> None:
    for text, emotion, risk in GOLDEN_STATEMENTS:
        verdict = rules.apply(text)
        if risk == "high":
            assert (verdict.risk_floor, verdict.emotion, verdict.forced) == (risk, emotion, None)
        else:
            assert verdict.risk_floor is None
            assert verdict.forced is not None
            assert (verdict.forced["emotion"], verdict.forced["risk"]) == (emotion, risk)


def test_version_follows_the_content(rules: RuleSet) -> None:
    assert RuleSet.load().version == rules.version
    assert len(rules.version) == 12
