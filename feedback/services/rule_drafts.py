"""Drafts of rules: opened from what serves, saved valid or not, published by a run that passes the gates, or discarded.

A save names the version it saw; another save in between makes it a DraftConflict and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from feedback import ml, queries
from feedback.errors import DraftConflict, InvalidInput
from feedback.models import Person, RuleDraft
from feedback.services import audit
from feedback.services.records import feedback_records
from feedback.services.rule_text import RuleFields, list_rules, remove_rule, write_rule

State = RuleDraft.State
Edit = Callable[[dict[str, str]], dict[str, str]]
"""Files before and after."""


@dataclass(frozen=True, slots=True)
class RuleEdit:
    """One rule as a form sends it. `replaces` is the id it had; blank for a new rule."""

    file: str
    rule: RuleFields
    replaces: str = ""


def serving_release() -> ml.Release:
    """Raises InvalidInput while nothing serves."""
    release = ml.serving_release()
    if release is None:
        raise InvalidInput("no release serves yet: the operator loads one with manage.py load_starter")
    return release


@transaction.atomic
def open_draft(*, note: str, by: Person) -> RuleDraft:
    """A draft of the rules that serve. Raises BundleGone."""
    release = serving_release()
    draft = RuleDraft.objects.create(
        author=by,
        base=release,
        base_version=ml.load_rules(release).version,
        files=ml.read_rule_texts(release),
        note=note,
    )
    audit.record("open_rule_draft", draft, by=by, data={"base": release.name, "rules": draft.base_version})
    return draft


def save_rule(draft_id: int, edit: RuleEdit, *, version: int, by: Person) -> RuleDraft:
    """Keep one rule of a file. Raises DraftConflict, or InvalidInput for a file that cannot be edited by form."""

    def put(files: dict[str, str]) -> dict[str, str]:
        holder = find_file(files, edit.replaces)
        if edit.replaces and holder is None:
            raise DraftConflict(f"rule {edit.replaces} is no longer in the draft")
        if edit.rule.id != edit.replaces and find_file(files, edit.rule.id) is not None:
            raise InvalidInput(f"id: a rule {edit.rule.id} exists already. Give this one another id")
        file = holder or edit.file
        return files | {file: write_rule(files.get(file, ""), edit.rule, replaces=edit.replaces)}

    return _save(draft_id, put, version=version, by=by, act={"rule": edit.rule.id})


def drop_rule(draft_id: int, rule_id: str, *, version: int, by: Person) -> RuleDraft:
    """Raises DraftConflict."""

    def cut(files: dict[str, str]) -> dict[str, str]:
        file = find_file(files, rule_id)
        if file is None:
            raise DraftConflict(f"rule {rule_id} is no longer in the draft")
        return files | {file: remove_rule(files[file], rule_id)}

    return _save(draft_id, cut, version=version, by=by, act={"removed": rule_id})


def save_file(draft_id: int, file: str, text: str, *, version: int, by: Person) -> RuleDraft:
    """Keep a whole file; an empty text takes it out. Raises DraftConflict, or InvalidInput for an odd name."""
    if not ml.FILE_NAME.fullmatch(file):
        raise InvalidInput("a rules file is named with lower case letters, digits and _, and ends with .toml")

    def put(files: dict[str, str]) -> dict[str, str]:
        others = {name: content for name, content in files.items() if name != file}
        return others | {file: text.replace("\r\n", "\n")} if text.strip() else others

    return _save(draft_id, put, version=version, by=by, act={"file": file})


@transaction.atomic
def _save(draft_id: int, edit: Edit, *, version: int, by: Person, act: Mapping[str, str]) -> RuleDraft:
    draft = _lock_open(draft_id)
    if draft.version != version:
        raise DraftConflict(f"draft {draft_id} was changed meanwhile: look at it, then make your change again")
    draft.files = edit(draft.files)
    draft.problems = [item.as_dict() for item in ml.check_texts(draft.files, _base_rules(draft))]
    draft.version += 1
    draft.updated_at = timezone.now()
    draft.save(update_fields=["files", "problems", "version", "updated_at"])
    audit.record("save_rule_draft", draft, by=by, data={**act, "version": draft.version})
    return draft


def _lock_open(draft_id: int) -> RuleDraft:
    """Raises DraftConflict for a draft that is published, discarded or on its way."""
    draft = RuleDraft.objects.select_for_update(of=("self",)).select_related("base").get(pk=draft_id)
    if not draft.is_open:
        raise DraftConflict(f"draft {draft_id} is {draft.get_state_display().lower()} and can no longer be changed")
    return draft


def _base_rules(draft: RuleDraft) -> ml.RuleSet | None:
    """None where the base's bundle is gone: then no rule of the draft may be vouched for."""
    try:
        return ml.load_rules(draft.base)
    except ml.BundleGone:
        return None


def find_file(files: Mapping[str, str], rule_id: str) -> str | None:
    """The file that holds a rule."""
    return next(
        (file for file, text in sorted(files.items()) if any(rule.id == rule_id for rule in list_rules(text))), None
    )


@transaction.atomic
def discard(draft_id: int, *, by: Person) -> RuleDraft:
    """Raises DraftConflict."""
    draft = _lock_open(draft_id)
    draft.state = State.DISCARDED
    draft.updated_at = timezone.now()
    draft.save(update_fields=["state", "updated_at"])
    audit.record("discard_rule_draft", draft, by=by, data={"version": draft.version})
    return draft


@transaction.atomic
def submit(draft_id: int, *, version: int, publishes: bool, by: Person) -> RuleDraft:
    """Start the run that builds a bundle with these rules and has the gates judge it.

    Raises DraftConflict, or InvalidInput for rules that have problems or are those that serve.
    """
    draft = _lock_open(draft_id)
    if draft.version != version:
        raise DraftConflict(f"draft {draft_id} was changed meanwhile: look at it before you publish it")
    problems = ml.check_texts(draft.files, _base_rules(draft))
    if problems:
        raise InvalidInput(f"the draft has {len(problems)} problems: mend them first")
    serving = serving_release()
    if ml.load_rules(serving).version != draft.base_version:
        raise DraftConflict(
            f"the rules of {serving.name} are not those the draft was made from: open a new draft and make its changes "
            "there"
        )
    rules = ml.RuleSet(ml.read_texts(draft.files)[0])
    rules_version = ml.keep_rules(draft.files, rules, queries.measure_rules(rules))
    if rules_version == draft.base_version:
        raise InvalidInput("the draft says nothing that does not serve already, and no count has changed")
    draft.run = _start_run(draft, rules_version, publishes=publishes, by=by)
    draft.state, draft.submitted_by, draft.refusal, draft.updated_at = State.SUBMITTED, by, "", timezone.now()
    draft.save(update_fields=["run", "state", "submitted_by", "refusal", "updated_at"])
    data = {"version": draft.version, "rules": rules_version, "run": draft.run.pk, "publishes": publishes}
    audit.record("submit_rule_draft", draft, by=by, data=data)
    return draft


def _start_run(draft: RuleDraft, rules_version: str, *, publishes: bool, by: Person) -> ml.TrainingRun:
    """It trains nothing; the snapshot holds the rows that the gates measure on."""
    snapshot = ml.freeze_snapshot(feedback_records(), by_id=by.pk)
    options = {
        "rules_version": rules_version,
        "base_rules_version": draft.base_version,
        "reason": f"rules: {draft.note}" if draft.note else f"rules draft {draft.pk}",
    }
    return ml.start_run("rules", snapshot=snapshot, options=options, publishes=publishes, by_id=by.pk)


def settle_drafts() -> int:
    """Bring submitted drafts to where their runs have come. Returns how many moved; running it again moves none."""
    ended = RuleDraft.objects.filter(state=State.SUBMITTED, run__state__in=ml.TrainingRun.ENDED)
    return sum(_settle(pk) for pk in ended.order_by("pk").values_list("pk", flat=True))


@transaction.atomic
def _settle(draft_id: int) -> bool:
    locked = RuleDraft.objects.select_for_update(of=("self",), skip_locked=True)
    draft = locked.select_related("run", "submitted_by").filter(pk=draft_id, state=State.SUBMITTED).first()
    if draft is None or draft.run is None:
        return False
    release = draft.run.metrics.get("release", "")
    draft.state = State.PUBLISHED if release else State.DRAFT
    draft.refusal = "" if release else draft.run.error or _explain_end(draft.run)
    draft.updated_at = timezone.now()
    draft.save(update_fields=["state", "refusal", "updated_at"])
    verb = "publish_rule_draft" if release else "refuse_rule_draft"
    audit.record(verb, draft, by=draft.submitted_by, data={"run": draft.run.pk, "release": release})
    return True


def _explain_end(run: ml.TrainingRun) -> str:
    if run.state == run.State.CANCELLED:
        return f"run {run.pk} was cancelled"
    return f"run {run.pk} passed every gate; it was told not to publish"
