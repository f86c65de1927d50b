"""What a draft would change, on stored texts and on a functional suite."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks

from feedback import ml, tasks
from feedback.errors import DraftConflict, InvalidInput
from feedback.models import AuditEvent, Document, RuleChange, RuleDraft, RuleTryout
from feedback.services import rule_drafts, rule_tryouts
from feedback.services.rule_drafts import RuleEdit
from feedback.services.rule_text import RuleFields
from feedback.services.rule_tryouts import Suite, judge_case, read_suite, run_tryout
from tests.cast import Cast, setup_cast, setup_document
from tests.rules_release import FILES, MAIN, setup_rules_release

GLAD = {"emotion": "positive", "sentiment": "positive", "stress": "low", "risk": "none"}
NEW = RuleFields("own.one", "block", floor="medium", emotion="self_harm_low", literals=("ownword",))


def case(name: str, text: str, must: str, **labels: str) -> dict[str, Any]:
    return {"id": name, "functionality": "F00", "text": text, "labels": {**GLAD, **labels}, "must": must}


CASES = [
    case("one", "an ownword here", "risk_min:medium", risk="medium"),
    case("two", "an ownword as a joke", "risk_max:none"),
    case("three", "nothing at all", "risk_max:low"),
]


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


@pytest.fixture
def draft(cast: Cast) -> RuleDraft:
    """One new block rule."""
    setup_rules_release()
    draft = rule_drafts.open_draft(note="", by=cast.ada)
    return rule_drafts.save_rule(draft.pk, RuleEdit("own.toml", NEW), version=1, by=cast.ada)


def run(draft: RuleDraft, cast: Cast, *, wanted: int = 1_000, suite: Suite | None = None) -> RuleTryout:
    started = rule_tryouts.start_tryout(draft.pk, version=draft.version, wanted=wanted, suite=suite, by=cast.ada)
    run_tryout(started.pk)
    return RuleTryout.objects.get(pk=started.pk)


def test_counts_and_rows_of_what_changes(draft: RuleDraft, cast: Cast) -> None:
    for text in ("an ownword", "blockword", "nothing"):
        setup_document(text=text)
    done = run(draft, cast)
    assert (done.state, done.done, done.total) == ("done", 3, 3)
    assert (done.counts["changed"], done.counts["floor_raised"], done.counts["documents"]) == (1, 1, 3)
    (row,) = RuleChange.objects.all()
    assert row.text == "an ownword"
    assert (row.before["floor"], row.after["floor"]) == ("", "medium")
    assert [item["rule"] for item in row.after["evidence"]] == ["own.one"]


def test_the_decision_is_made_anew_from_stored_scores(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword")
    done = run(draft, cast)
    row = RuleChange.objects.get()
    assert done.counts["decided"] == 1
    assert (row.before["labels"]["risk"], row.after["labels"]["risk"]) == ("none", "medium")
    assert row.kinds == ["floor_raised", "label_changed", "evidence_gained"]


def test_scores_of_other_arms_are_left_alone(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword")
    setup_rules_release(bert="c" * 12)
    done = run(draft, cast)
    assert (done.counts["decided"], done.counts["documents"]) == (0, 1)
    assert RuleChange.objects.get().kinds == ["floor_raised", "evidence_gained"]


def test_scores_stay_good_when_only_the_rules_of_a_release_are_new(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword")
    setup_rules_release({**FILES, "main.toml": MAIN + "# newer\n"})
    assert run(draft, cast).counts["decided"] == 1


def test_the_newest_documents_are_taken(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword of old")
    setup_document(text="newer")
    done = run(draft, cast, wanted=1)
    assert (done.counts["documents"], done.counts.get("changed", 0)) == (1, 0)


def test_text_of_risk_and_text_nobody_has_scored_is_covered(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword")
    setup_document(text="another ownword", state=Document.State.UNSCORED)
    run(draft, cast)
    assert set(RuleChange.objects.values_list("is_severe", flat=True)) == {True}


def test_harmless_text_is_not(draft: RuleDraft, cast: Cast) -> None:
    hint = RuleFields("own.one", "hint", literals=("ownword",))
    changed = rule_drafts.save_rule(draft.pk, RuleEdit("own.toml", hint, "own.one"), version=2, by=cast.ada)
    setup_document(text="an ownword")
    run(changed, cast)
    assert not RuleChange.objects.get().is_severe


def test_suite_says_which_cases_become_better_or_worse(draft: RuleDraft, cast: Cast) -> None:
    done = run(draft, cast, suite=Suite("suite.jsonl", CASES))
    counts = done.counts
    assert (counts["cases"], counts["cases_better"], counts["cases_worse"]) == (3, 1, 1)
    assert (counts["cases_open_before"], counts["cases_open_after"]) == (3, 1)
    assert (counts["cases_met_after"], counts["cases_broken_after"]) == (1, 1)
    rows = {row.case["id"]: row.case["after"] for row in RuleChange.objects.all() if row.case}
    assert rows == {"one": "met", "two": "broken"}


@pytest.mark.parametrize(
    ("text", "must", "labels", "verdict"),
    [
        ("blockword", "risk_min:high", {"risk": "high"}, "met"),
        ("blockword", "risk_min:medium", {"risk": "high"}, "met"),
        ("blockword", "risk_max:low", {}, "broken"),
        ("blockword", "risk", {"risk": "high"}, "met"),
        ("blockword", "risk", {"risk": "medium"}, "broken"),
        ("blockword", "all", {"risk": "high"}, "open"),
        ("allowword", "risk_max:none", {}, "met"),
        ("allowword", "risk_min:medium", {"risk": "medium"}, "broken"),
        ("allowword", "all", {}, "met"),
        ("allowword", "all", {"emotion": "neutral"}, "open"),
        ("no word", "risk_max:none", {}, "open"),
    ],
)
def test_what_the_rules_alone_make_of_a_case(
    cast: Cast, text: str, must: str, labels: dict[str, str], verdict: str
) -> None:
    rules = ml.load_rules(setup_rules_release())
    assert judge_case(case("x", text, must, **labels), rules) == verdict


def test_uploaded_suite_is_read_row_by_row() -> None:
    data = "\n".join(json.dumps(item) for item in CASES).encode()
    assert [item["id"] for item in read_suite(b"\xef\xbb\xbf" + data, "mine.jsonl").cases] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"id": "1"}\n', "suite.jsonl:1: lacks"),
        (json.dumps(CASES[0]).encode() + b"\n[]\n", "suite.jsonl:2: expected a JSON object"),
        (json.dumps({**CASES[0], "must": "risk_min:huge"}).encode(), "must is 'risk_min:huge'"),
        (b"\xff\xfe", "not UTF-8 at byte 1"),
        (b"", "no rows"),
    ],
)
def test_odd_suite_is_refused_with_its_row(data: bytes, reason: str) -> None:
    with pytest.raises((ml.RowError, InvalidInput), match=reason) as caught:
        read_suite(data, "mine.jsonl")
    assert "ownword" not in str(caught.value)


def test_configured_suite_is_taken(settings: Any, tmp_path: Any) -> None:
    assert rule_tryouts.configured_suite() is None
    settings.SUITE_FILE = tmp_path / "house.jsonl"
    with pytest.raises(InvalidInput, match="HEED_SUITE_FILE cannot be read"):
        rule_tryouts.configured_suite()
    settings.SUITE_FILE.write_text(json.dumps(CASES[0]), encoding="utf-8")
    suite = rule_tryouts.configured_suite()
    assert suite is not None
    assert (suite.name, len(suite.cases)) == ("house.jsonl", 1)


def test_a_late_try_out_stops_and_says_how_far_it_came(
    draft: RuleDraft, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_tryouts, "BATCH", 2)
    monkeypatch.setattr(rule_tryouts, "LIMIT_S", -1.0)
    for number in range(5):
        setup_document(text=f"an ownword {number}")
    done = run(draft, cast)
    assert (done.state, done.done, done.total, done.counts["changed"]) == ("done", 2, 5, 2)


def test_second_delivery_does_nothing(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword")
    done = run(draft, cast)
    run_tryout(done.pk)
    assert RuleChange.objects.count() == 1


def test_a_new_try_out_takes_the_place_of_the_old_one(draft: RuleDraft, cast: Cast) -> None:
    setup_document(text="an ownword")
    first, second = run(draft, cast), run(draft, cast)
    assert list(RuleTryout.objects.values_list("pk", flat=True)) == [second.pk]
    assert first.pk != second.pk


def test_one_at_a_time_and_only_of_the_version_that_was_seen(draft: RuleDraft, cast: Cast) -> None:
    values: dict[str, Any] = {"wanted": 1, "suite": None, "by": cast.ada}
    with pytest.raises(DraftConflict, match="changed meanwhile"):
        rule_tryouts.start_tryout(draft.pk, version=1, **values)
    started = rule_tryouts.start_tryout(draft.pk, version=2, **values)
    with pytest.raises(DraftConflict, match="already"):
        rule_tryouts.start_tryout(draft.pk, version=2, **values)
    RuleTryout.objects.filter(pk=started.pk).update(touched_at=started.touched_at - RuleTryout.LOST_AFTER)
    assert rule_tryouts.start_tryout(draft.pk, version=2, **values).pk != started.pk


def test_a_failure_is_told_in_the_row(draft: RuleDraft, cast: Cast, settings: Any, tmp_path: Any) -> None:
    started = rule_tryouts.start_tryout(draft.pk, version=2, wanted=1, suite=None, by=cast.ada)
    settings.RELEASES_DIR = tmp_path / "elsewhere"
    run_tryout(started.pk)
    started.refresh_from_db()
    assert (started.state, "not on this machine's disk" in started.error) == ("failed", True)


def test_it_is_queued_when_the_transaction_commits(
    draft: RuleDraft,
    cast: Cast,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(tasks.try_rules_task, "delay", sent.append)
    with django_capture_on_commit_callbacks(execute=True):
        started = rule_tryouts.start_tryout(draft.pk, version=2, wanted=1, suite=None, by=cast.ada)
    assert sent == [started.pk]


def test_each_look_at_a_covered_text_is_recorded(draft: RuleDraft, cast: Cast) -> None:
    document = setup_document(text="an ownword")
    run(draft, cast)
    assert rule_tryouts.reveal(RuleChange.objects.get(), by=cast.ada) == "an ownword"
    event = AuditEvent.objects.order_by("-id")[0]
    assert (event.verb, event.data) == ("reveal_rule_change", {"text_hash": document.text_hash})
