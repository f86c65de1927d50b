"""What people's answers say of the rules."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback import ml, queries
from feedback.models import Document
from tests.cast import Cast, setup_annotation, setup_cast, setup_document
from tests.rules_release import ALLOW, FILES, MAIN, setup_rules_release

GLAD = {"emotion": "positive", "sentiment": "positive", "stress": "low", "risk": "none"}


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


@pytest.fixture
def release(cast: Cast) -> ml.Release:
    return setup_rules_release()


def setup_hit(rule: str, kind: str, *, scopes: tuple[str, ...] = ("plain",), **overrides: Any) -> Document:
    evidence = [{"rule": rule, "kind": kind, "start": 0, "end": 3, "scope": scope} for scope in scopes]
    return setup_document(evidence=evidence, **overrides)


def measure(release: ml.Release) -> dict[str, tuple[int, int]]:
    found = queries.measure_rules(ml.load_rules(release))
    return {rule: (item.confirmed, item.hits) for rule, item in found.items()}


@pytest.mark.parametrize(("risk", "confirmed"), [("high", 1), ("medium", 0), ("none", 0)])
def test_a_block_rule_claims_its_floor(cast: Cast, release: ml.Release, risk: str, confirmed: int) -> None:
    document = setup_hit("b.boom", "block", labels={"risk": "high"}, case=False)
    setup_annotation(cast.ana, document=document, verdict="corrected", labels={"risk": risk, "emotion": "stress"})
    assert measure(release) == {"b.boom": (confirmed, 1)}


def test_a_hint_claims_medium_risk(cast: Cast, release: ml.Release) -> None:
    for risk in ("medium", "low"):
        document = setup_hit("h.hum", "hint", labels={"risk": "high"}, case=False)
        setup_annotation(cast.ana, document=document, verdict="corrected", labels={"risk": risk, "emotion": "stress"})
    assert measure(release) == {"h.hum": (1, 2)}


def test_an_allow_rule_claims_all_its_labels(cast: Cast, release: ml.Release) -> None:
    setup_annotation(cast.ana, document=setup_hit("a.shipped", "allow", labels=GLAD))
    other = setup_hit("a.shipped", "allow", labels=GLAD)
    setup_annotation(cast.ana, document=other, verdict="corrected", labels={"emotion": "neutral"})
    assert measure(release) == {"a.shipped": (1, 2)}


def test_incorrect_without_more_counts_against_labels_that_were_forced(cast: Cast, release: ml.Release) -> None:
    setup_annotation(cast.ana, document=setup_hit("a.shipped", "allow", labels=GLAD), verdict="incorrect")
    trial = setup_hit("a.new", "allow", scopes=("trial",), labels=GLAD)
    setup_annotation(cast.ana, document=trial, verdict="incorrect")
    setup_annotation(cast.ana, document=setup_hit("b.boom", "block"), verdict="incorrect")
    assert measure(release) == {"a.shipped": (0, 1)}


def test_a_hit_on_trial_is_counted(cast: Cast, release: ml.Release) -> None:
    setup_annotation(cast.ana, document=setup_hit("a.new", "allow", scopes=("trial",), labels=GLAD))
    assert measure(release) == {"a.new": (1, 1)}


def test_unsure_and_undone_answers_say_nothing(cast: Cast, release: ml.Release) -> None:
    from feedback.services.annotation import undo_annotation

    setup_annotation(cast.ana, document=setup_hit("a.shipped", "allow", labels=GLAD), verdict="unsure")
    undone = setup_annotation(cast.bo, document=setup_hit("a.shipped", "allow", labels=GLAD))
    undo_annotation(undone, by=cast.bo)
    assert measure(release) == {}


def test_a_text_counts_once_however_often_the_rule_is_in_it(cast: Cast, release: ml.Release) -> None:
    document = setup_hit("b.boom", "block", scopes=("plain", "plain", "joke"), labels={"risk": "high"}, case=False)
    setup_annotation(cast.ana, document=document)
    assert measure(release) == {"b.boom": (1, 1)}
    assert queries.recent_hits() == {"b.boom": 1}


def test_a_cleared_block_hit_claims_nothing(cast: Cast) -> None:
    scopes = "[scope.negated]\nclears = true\n[scope.past]\nclears = true\n"
    files = {
        **FILES,
        "main.toml": MAIN.replace('kind = "block"', 'kind = "block"\nignores = ["past"]'),
        "s.toml": scopes,
    }
    release = setup_rules_release(files)
    setup_annotation(cast.ana, document=setup_hit("b.boom", "block", scopes=("negated",)))
    assert measure(release) == {}
    setup_annotation(cast.ana, document=setup_hit("b.boom", "block", scopes=("past",)))
    assert measure(release) == {"b.boom": (0, 1)}


def test_what_was_said_of_another_form_of_the_rule_does_not_count(cast: Cast, release: ml.Release) -> None:
    setup_annotation(cast.ana, document=setup_hit("a.new", "allow", scopes=("trial",), labels=GLAD))
    other = setup_rules_release(
        {**FILES, "allow.toml": ALLOW.replace('["fineword"]\nlabels', '["fineword", "more"]\nlabels')}
    )
    assert measure(other) == {}
    same = setup_rules_release(FILES)
    assert measure(same) == {"a.new": (1, 1)}


def test_three_statements_however_many_answers(cast: Cast, release: ml.Release) -> None:
    rules = ml.load_rules(release)

    def count() -> int:
        with CaptureQueriesContext(connection) as made:
            queries.measure_rules(rules)
        return len(made)

    setup_annotation(cast.ana, document=setup_hit("a.shipped", "allow", labels=GLAD))
    few = count()
    for _ in range(5):
        setup_annotation(cast.ana, document=setup_hit("h.hum", "hint"))
    assert count() == few <= 2
