"""New rules become a release by the same road as a trained arm: a run, a candidate bundle, gates, a swap."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from classifier import api as classifier_api
from classifier.bundle import read_manifest
from classifier.errors import RuleError
from classifier.rules import RuleSet
from classifier.rules.precision import estimate_precision
from tests.classifier.toys import TOY_RULES, make_bundle
from tests.training.toyruns import ANSWERS, answer_rows, make_rows, write_data
from training import api, registry, rule_files, supervisor
from training.jobs.config import ConfigError
from training.models import DatasetSnapshot, Release, TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

NEW = '\n[[rule]]\nid = "toy-new"\nkind = "block"\nliterals = ["newword"]\nfloor = "medium"\nexamples = ["newword"]\n'


@pytest.fixture
def snapshot(var_dir: Path, toys: Path) -> DatasetSnapshot:
    """Few rows, and the toy bundle as the starter release."""
    api.ensure_starter_release(toys / "toy-1")
    folder = write_data(var_dir / "snapshots" / "toy", make_rows(16), answer_rows())
    return DatasetSnapshot.objects.create(content_hash="0" * 64, uri=str(folder), rows=24)


def serving() -> Release:
    release = api.serving_release()
    assert release is not None
    return release


def keep(text: str) -> str:
    return rule_files.keep_rules({"toy.toml": text}, RuleSet({"toy.toml": tomllib.loads(text)}), {})


def run_rules(snapshot: DatasetSnapshot, text: str) -> TrainingRun:
    options = {
        "rules_version": keep(text),
        "base_rules_version": api.load_rules(serving()).version,
        "reason": "rules: one more word",
    }
    run = api.start_run("rules", snapshot=snapshot, options=options)
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    return run


def test_new_rules_serve_beside_the_old_arms_and_are_rolled_back(snapshot: DatasetSnapshot, toys: Path) -> None:
    starter = serving()
    run = run_rules(snapshot, TOY_RULES + NEW)
    assert (run.state, run.error, run.stage, run.version.arm) == ("succeeded", "", "released", "rules")
    release = serving()
    assert (release.reason, release.version_id) == ("rules: one more word", run.version.pk)
    assert release.report["gates"][0]["name"] == "five statements"
    before, after = read_manifest(toys / "toy-1"), read_manifest(registry.bundle_path(release))
    assert (after.bert, after.files["calibration.json"]) == (before.bert, before.files["calibration.json"])
    assert after.rules_version == run.config["options"]["rules_version"] != before.rules_version
    name, bundle = classifier_api.serving_bundle()
    classifier = classifier_api.load(bundle, release=name)
    assert classifier.decide(["a newword here"])[0].risk_floor == "medium"
    restored = api.roll_back(starter.pk, by_id=None, reason="too many alarms")
    assert restored.manifest_hash == starter.manifest_hash
    assert api.load_rules(serving()).apply("a newword here").risk_floor is None


def test_rules_that_break_a_statement_are_refused_by_a_gate(snapshot: DatasetSnapshot) -> None:
    wrong = NEW.replace("newword", "i went to the store").replace("medium", "high")
    run = run_rules(snapshot, TOY_RULES + wrong)
    assert (run.state, run.stage) == ("succeeded", "refused by a gate")
    assert "five statements" in run.error
    assert Release.objects.count() == 1


def test_failing_example_fails_the_run_in_words(snapshot: DatasetSnapshot) -> None:
    run = run_rules(snapshot, TOY_RULES + NEW.replace('examples = ["newword"]', 'examples = ["other"]'))
    assert run.state == "failed"
    assert "toy-new: example 1 does not fire" in run.error


def test_rules_made_from_others_than_those_that_serve_are_refused(snapshot: DatasetSnapshot) -> None:
    options = {"rules_version": keep(TOY_RULES + NEW), "base_rules_version": "f" * 12}
    run = api.start_run("rules", snapshot=snapshot, options=options)
    supervisor.supervise(run.pk)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "the draft was made from ffffffffffff" in run.error


def test_a_new_arm_meanwhile_keeps_its_place_beside_the_new_rules(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    newer = make_bundle(tmp_path, name="toy-2", seed=2, llm=False, answers=ANSWERS)
    publication = registry.Publication(bundle=newer, kind=Release.Kind.TRAINING)
    registry.publish_release(publication, expected=serving())
    run = run_rules(snapshot, TOY_RULES + NEW)
    assert run.state == "succeeded"
    assert read_manifest(registry.bundle_path(serving())).bert == read_manifest(newer).bert


@pytest.mark.parametrize("version", ["", "0" * 12, "../../../etc", "."])
def test_a_run_without_kept_rules_is_not_started(snapshot: DatasetSnapshot, version: str) -> None:
    with pytest.raises(ConfigError, match="rules_version"):
        api.start_run("rules", snapshot=snapshot, options={"rules_version": version})


def test_kept_rules_that_were_altered_are_not_run(snapshot: DatasetSnapshot, tmp_path: Path) -> None:
    version = keep(TOY_RULES + NEW)
    folder = rule_files.kept_rules(version)
    assert folder is not None
    (folder / "toy.toml").write_text(TOY_RULES, encoding="utf-8")
    with pytest.raises(api.BundleGone, match="publish the draft again"):
        rule_files.copy_kept_rules(version, tmp_path / "rules")


@pytest.mark.parametrize("name", ["../x.toml", "earned.toml", "x.py"])
def test_an_odd_file_is_not_kept(var_dir: Path, name: str) -> None:
    with pytest.raises(RuleError, match="no name for a rules file"):
        rule_files.keep_rules({name: TOY_RULES}, RuleSet({"toy.toml": tomllib.loads(TOY_RULES)}), {})


def test_what_was_counted_is_read_back(var_dir: Path) -> None:
    rules = RuleSet({"toy.toml": tomllib.loads(TOY_RULES)})
    measured = {
        "toy-block": estimate_precision(3, 4),
        "toy-hint": estimate_precision(0, 0),
        "gone": estimate_precision(1, 1),
    }
    version = rule_files.keep_rules({"toy.toml": TOY_RULES}, rules, measured)
    folder = rule_files.kept_rules(version)
    assert folder is not None
    counts = {rule.id: (rule.confirmed, rule.hits) for rule in RuleSet.load(folder).rules}
    assert counts == {"toy-block": (3, 4), "toy-allow": (0, 0), "toy-hint": (0, 0)}
    assert (rule_files.keep_rules({"toy.toml": TOY_RULES}, rules, measured), version.isalnum()) == (version, True)
