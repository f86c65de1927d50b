import time

import pytest

from classifier.rules import RuleSet
from classifier.rules.engine import MAX_EVIDENCE
from classifier.rules.patterns import MAX_JUDGED_HITS

LENGTH = 80_000
GROWTH = 4
PATHOLOGICAL = {
    "one letter": "a",
    "signs": "@",
    "spaced letters": "k i l l ",
    "hyphens": "a-",
    "masks": "k*",
    "quotes": "\"'",
    "combining marks": "\u0301",
    "blanks": " \n",
    "emoji": "😂🔫",
    "hits": "I want to kill myself. ",
    "cleared hits": "I am not saying I want to die ",
    "openings": "my friend said i want to really really ",
}


def measure_s(rules: RuleSet, text: str) -> float:
    """This thread's own time on a core, best of three: what else the machine does is not counted."""
    times = []
    for _ in range(3):
        start = time.thread_time()
        rules.apply(text)
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize("unit", PATHOLOGICAL.values(), ids=PATHOLOGICAL.keys())
def test_time_grows_with_the_length_only(rules: RuleSet, unit: str) -> None:
    short, long = unit * (LENGTH // GROWTH // len(unit)), unit * (LENGTH // len(unit))
    # Quadratic growth would be 16 times; 10 leaves room for noise. The constant covers what is too short to time.
    assert measure_s(rules, long) <= 10 * measure_s(rules, short) + 0.05


def test_too_many_hits_to_judge_count_as_plain(rules: RuleSet) -> None:
    sentence = "She said I want to die. "
    assert rules.apply(sentence * 10).risk_floor is None
    verdict = rules.apply(sentence * (MAX_JUDGED_HITS + 1))
    assert verdict.risk_floor == "medium"
    assert len(verdict.evidence) == MAX_EVIDENCE


def test_one_plain_hit_among_many_cleared_ones_stays_in_evidence(rules: RuleSet) -> None:
    verdict = rules.apply("She said I want to die. " * (MAX_EVIDENCE + 50) + "I want to kill myself.")
    assert verdict.risk_floor == "high"
    assert any(item.rule == "active.intent" and item.scope == "plain" for item in verdict.evidence)
