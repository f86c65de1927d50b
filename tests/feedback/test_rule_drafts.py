"""Drafts of rules: saving, conflicts, publishing, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from feedback import ml
from feedback.errors import DraftConflict, InvalidInput
from feedback.models import AuditEvent, RuleDraft
from feedback.services import rule_drafts
from feedback.services.rule_drafts import RuleEdit
from feedback.services.rule_text import RuleFields
from tests.cast import Cast, setup_annotation, setup_cast, setup_document
from tests.rules_release import FILES, MAIN, setup_rules_release
from training.models import Release, TrainingRun

NEW = RuleFields("own.one", "block", floor="medium", literals=("ownword",), examples=("ownword",))


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


@pytest.fixture
def draft(cast: Cast) -> RuleDraft:
    setup_rules_release()
    return rule_drafts.open_draft(note="more words", by=cast.ada)


def save(draft: RuleDraft, rule: RuleFields, cast: Cast, **overrides: Any) -> RuleDraft:
    values: dict[str, Any] = {"version": draft.version, "by": cast.ada} | overrides
    return rule_drafts.save_rule(draft.pk, RuleEdit("own.toml", rule), **values)


def verbs() -> list[str]:
    return list(AuditEvent.objects.filter(noun="ruledraft").order_by("id").values_list("verb", flat=True))


def test_a_draft_begins_with_the_files_that_serve(draft: RuleDraft) -> None:
    assert draft.files == FILES
    assert draft.base_version == ml.load_rules(draft.base).version
    assert draft.is_valid


def test_what_was_counted_is_no_part_of_a_draft(cast: Cast) -> None:
    setup_rules_release({**FILES, "earned.toml": '[earned."a.new"]\nhits = 1\nconfirmed = 1\nof = "x"\n'})
    assert set(rule_drafts.open_draft(note="", by=cast.ada).files) == set(FILES)


def test_a_new_rule_goes_to_its_file(draft: RuleDraft, cast: Cast) -> None:
    saved = save(draft, NEW, cast)
    assert (saved.version, saved.problems) == (2, [])
    assert ml.RuleSet(ml.read_texts(saved.files)[0]).apply("Ownword.").risk_floor == "medium"


def test_a_refused_rule_is_saved_all_the_same(draft: RuleDraft, cast: Cast) -> None:
    save(draft, RuleFields("own.one", "hint", expressions=("a(?=b)",)), cast)
    draft.refresh_from_db()
    assert "a(?=b)" in draft.files["own.toml"]
    assert [(item["file"], item["rule"]) for item in draft.problems] == [("own.toml", "own.one")]
    assert "lookahead" in draft.problems[0]["sentence"]


def test_a_broken_file_is_saved_all_the_same(draft: RuleDraft, cast: Cast) -> None:
    saved = rule_drafts.save_file(draft.pk, "main.toml", "[[rule]\r\n", version=1, by=cast.ada)
    saved.refresh_from_db()
    assert saved.files["main.toml"] == "[[rule]\n"
    assert saved.problems[0]["line"] == 1


def test_an_emptied_file_leaves_the_draft(draft: RuleDraft, cast: Cast) -> None:
    assert set(rule_drafts.save_file(draft.pk, "allow.toml", " \n", version=1, by=cast.ada).files) == {"main.toml"}


@pytest.mark.parametrize("name", ["../main.toml", "main.py", "Main.toml", "a/b.toml", ".toml"])
def test_an_odd_file_name_is_refused(draft: RuleDraft, cast: Cast, name: str) -> None:
    with pytest.raises(InvalidInput, match="lower case"):
        rule_drafts.save_file(draft.pk, name, "x = 1", version=1, by=cast.ada)


def test_a_save_that_has_not_seen_the_newest_version_writes_nothing(draft: RuleDraft, cast: Cast) -> None:
    save(draft, NEW, cast)
    with pytest.raises(DraftConflict, match="changed meanwhile"):
        save(draft, RuleFields("own.two", "hint", literals=("x",)), cast, version=1)
    draft.refresh_from_db()
    assert "own.two" not in draft.files["own.toml"]


def test_an_id_stands_once(draft: RuleDraft, cast: Cast) -> None:
    with pytest.raises(InvalidInput, match="exists already"):
        save(draft, RuleFields("b.boom", "hint", literals=("x",)), cast)


def test_a_removed_rule_is_gone(draft: RuleDraft, cast: Cast) -> None:
    saved = rule_drafts.drop_rule(draft.pk, "h.hum", version=1, by=cast.ada)
    assert saved.files["main.toml"] == MAIN[: MAIN.index('\n[[rule]]\nid = "h.hum"') + 1]
    with pytest.raises(DraftConflict):
        rule_drafts.drop_rule(draft.pk, "h.hum", version=2, by=cast.ada)


def test_a_discarded_draft_can_no_longer_be_changed(draft: RuleDraft, cast: Cast) -> None:
    rule_drafts.discard(draft.pk, by=cast.ada)
    with pytest.raises(DraftConflict, match="is discarded"):
        save(draft, NEW, cast)
    assert verbs() == ["open_rule_draft", "discard_rule_draft"]


def submit(draft: RuleDraft, cast: Cast) -> TrainingRun:
    submitted = rule_drafts.submit(draft.pk, version=draft.version, publishes=True, by=cast.ada)
    assert submitted.run is not None
    return submitted.run


def test_publishing_starts_a_run_on_the_kept_files(draft: RuleDraft, cast: Cast, settings: Any) -> None:
    run = submit(save(draft, NEW, cast), cast)
    version = run.config["options"]["rules_version"]
    folder = Path(settings.RELEASES_DIR) / "rules" / version
    assert (run.kind, run.config["options"]["base_rules_version"]) == ("rules", draft.base_version)
    assert {path.name for path in folder.iterdir()} == {"allow.toml", "main.toml", "own.toml"}
    assert verbs() == ["open_rule_draft", "save_rule_draft", "submit_rule_draft"]


def test_what_annotators_confirmed_travels_with_the_rules(draft: RuleDraft, cast: Cast, settings: Any) -> None:
    evidence = [{"rule": "a.new", "kind": "allow", "start": 0, "end": 3, "scope": "trial"}]
    glad = {"emotion": "positive", "sentiment": "positive"}
    for _ in range(35):
        setup_annotation(cast.ana, document=setup_document(evidence=evidence, labels=glad))
    run = submit(draft, cast)
    folder = Path(settings.RELEASES_DIR) / "rules" / run.config["options"]["rules_version"]
    rules = ml.RuleSet.load(folder)
    (rule,) = [rule for rule in rules.rules if rule.id == "a.new"]
    assert (rule.hits, rule.confirmed, rule.is_active) == (35, 35, True)
    assert rules.apply("fineword").forced is not None


def test_a_draft_with_problems_is_not_published(draft: RuleDraft, cast: Cast) -> None:
    saved = save(draft, RuleFields("own.one", "hint", expressions=("(",)), cast)
    with pytest.raises(InvalidInput, match="1 problems"):
        submit(saved, cast)
    assert not TrainingRun.objects.exists()


def test_a_draft_that_changes_nothing_is_not_published(draft: RuleDraft, cast: Cast) -> None:
    with pytest.raises(InvalidInput, match="does not serve already"):
        submit(draft, cast)


def test_a_draft_of_rules_that_no_longer_serve_is_not_published(draft: RuleDraft, cast: Cast) -> None:
    saved = save(draft, NEW, cast)
    setup_rules_release({**FILES, "main.toml": MAIN + "# newer\n"})
    with pytest.raises(DraftConflict, match="open a new draft"):
        submit(saved, cast)


def test_a_new_arm_under_the_same_rules_is_no_obstacle(draft: RuleDraft, cast: Cast) -> None:
    saved = save(draft, NEW, cast)
    setup_rules_release(bert="c" * 12)
    assert submit(saved, cast).state == "queued"


def end(run: TrainingRun, **fields: Any) -> None:
    TrainingRun.objects.filter(pk=run.pk).update(**({"state": "succeeded"} | fields))


def test_a_published_draft_is_settled_once(draft: RuleDraft, cast: Cast) -> None:
    run = submit(save(draft, NEW, cast), cast)
    assert rule_drafts.settle_drafts() == 0
    end(run, metrics={"release": "r0009"})
    assert (rule_drafts.settle_drafts(), rule_drafts.settle_drafts()) == (1, 0)
    draft.refresh_from_db()
    event = AuditEvent.objects.order_by("-id")[0]
    assert draft.state == "published"
    assert (event.verb, event.actor_id, event.data["release"]) == ("publish_rule_draft", cast.ada.pk, "r0009")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"error": "Not released: macro F1 is 0.5."}, "macro F1"),
        ({"state": "failed", "error": "out of memory"}, "out of memory"),
        ({"state": "cancelled"}, "was cancelled"),
    ],
)
def test_a_draft_that_made_no_release_is_open_again(
    draft: RuleDraft, cast: Cast, fields: dict[str, Any], reason: str
) -> None:
    run = submit(save(draft, NEW, cast), cast)
    end(run, **fields)
    rule_drafts.settle_drafts()
    draft.refresh_from_db()
    assert draft.is_open
    assert reason in draft.refusal
    assert submit(save(draft, RuleFields("own.two", "hint", literals=("x",)), cast), cast).pk != run.pk


def test_no_event_holds_a_pattern(draft: RuleDraft, cast: Cast) -> None:
    save(draft, NEW, cast)
    assert "ownword" not in json.dumps(list(AuditEvent.objects.values_list("data", flat=True)))


@pytest.mark.django_db(transaction=True)
def test_of_two_saves_of_one_version_one_is_kept(settings: Any) -> None:
    import threading

    cast = setup_cast()
    setup_rules_release()
    draft = rule_drafts.open_draft(note="", by=cast.ada)
    start, outcomes = threading.Barrier(2), []

    def work(name: str) -> None:
        start.wait()
        try:
            save(draft, RuleFields(name, "hint", literals=("x",)), cast)
            outcomes.append("saved")
        except DraftConflict:
            outcomes.append("conflict")
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(f"own.{name}",)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict", "saved"]
    assert Release.objects.count() == 1
