import pytest

from classifier.rules import RuleSet


@pytest.mark.parametrize(
    "text",
    [
        "I don't want to die",
        "I am not suicidal",
        "I'm not saying I want to kill myself",
        "She said I want to kill myself",
        'He yelled "I want to die." and the curtain fell',
        '"I want to die," she sang',
        "Do I want to die? No.",
        "If the printer jams again I'm going to kill myself",
        "I want to die of embarrassment",
        "I'm going to kill myself laughing",
        "I cut myself shaving",
        "Years ago my sister told me she wanted to kill herself",
    ],
)
def test_scope_or_wording_leaves_the_text_to_the_models(rules: RuleSet, text: str) -> None:
    assert rules.apply(text).risk_floor is None


@pytest.mark.parametrize(
    "text",
    [
        "I can't say I don't want to die",
        "I don't not want to die",
        "Not that I'd do it, but I want to kill myself",
        "I'm not joking I want to die",
        "If you are reading this I want to die",
        "She said no and I want to kill myself",
        "I don't want to kill myself, I just don't want to be alive",
        "I can't kill myself because of my dog",
    ],
)
def test_negation_that_does_not_clear(rules: RuleSet, text: str) -> None:
    assert rules.apply(text).risk_floor is not None


def test_phrase_that_only_hides_a_trigger_is_no_scope(rules: RuleSet) -> None:
    assert {item.scope for item in rules.apply("I'm not joking I want to die").evidence} == {"plain"}


def test_text_that_is_all_quotation_is_the_speakers_own(rules: RuleSet) -> None:
    assert rules.apply('"I want to kill myself"').risk_floor == "high"


@pytest.mark.parametrize("other", ["It was in the song.", "I am not well.", "If only.", '"No", he said.', "Imagine\n"])
def test_trigger_in_another_sentence_does_not_reach(rules: RuleSet, other: str) -> None:
    assert rules.apply(f"{other} I want to kill myself. {other}").risk_floor == "high"


def test_joke_is_noted_and_clears_nothing(rules: RuleSet) -> None:
    verdict = rules.apply("I want to kill myself lol")
    assert verdict.risk_floor == "high"
    assert {item.scope for item in verdict.evidence if item.kind == "block"} == {"joke"}
