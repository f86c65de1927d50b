"""One draft of rules: what it changes, what is wrong with it, editing it, publishing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from feedback import ml, queries
from feedback.access import allow, draft_read, draft_write
from feedback.errors import DraftConflict, InvalidInput
from feedback.forms import refuse_invalid
from feedback.models import RuleDraft
from feedback.services import rule_drafts
from feedback.services.rule_drafts import RuleEdit
from feedback.services.rule_text import RULE_ID, RuleFields, list_rules
from feedback.views.http import HeedRequest
from feedback.views.rule_forms import OWN_FILE, PublishForm, RuleFileForm, RuleForm, TryoutForm, VersionForm

DIFF_LINES = 2_000
SCOPES = (
    "negated",
    "third_person",
    "quoted",
    "hypothetical",
    "past",
    "idiom",
    "medical",
    "help_seeking",
    "joke",
)
"""Offered where a draft's own scopes cannot be read."""


@dataclass(frozen=True, slots=True)
class DraftRule:
    """A rule of the draft, of the base, or of both."""

    id: str
    file: str
    kind: str
    state: str
    """`added`, `removed`, `changed`, `disabled`, or empty: as it serves."""
    fields: Sequence[str]
    """Those that differ."""
    problems: int

    @property
    def is_editable(self) -> bool:
        """By form; an odd id can be mended in the file."""
        return self.state != "removed" and RULE_ID.fullmatch(self.id) is not None


@allow("edit_rules")
def draft(request: HeedRequest, pk: int) -> HttpResponse:
    found = draft_read(request.user, pk)
    base = base_texts(found)
    tryout = queries.newest_tryout(found)
    context = {
        "draft": found,
        "rules": compare_rules(found, base),
        "files": sorted(found.files),
        "diff": diff_files(base, found.files),
        "has_base": bool(base),
        "tryout": tryout,
        "tryout_form": TryoutForm(initial={"version": found.version}),
        "publish_form": PublishForm(initial={"version": found.version, "publishes": True}),
        "is_stale": tryout is not None and tryout.draft_version != found.version,
        "own_file": OWN_FILE,
    }
    return render(request, "feedback/rule_draft.html", context)


def base_texts(found: RuleDraft) -> dict[str, str]:
    """Empty where the base's bundle is not on this machine's disk."""
    try:
        return ml.read_rule_texts(found.base)
    except ml.BundleGone:
        return {}


def compare_rules(found: RuleDraft, base: Mapping[str, str]) -> list[DraftRule]:
    """Every rule of the draft and those that it takes out: what differs first, then in the order of the files."""
    before, after = _rules_of(base), _rules_of(found.files)
    wrong = [str(problem["rule"]) for problem in found.problems]
    rows = [_compare_rule(rule, file, before.get(rule.id), wrong.count(rule.id)) for file, rule in after.values()]
    gone = [
        DraftRule(rule.id, file, rule.kind, "removed", (), 0)
        for name, (file, rule) in before.items()
        if name not in after
    ]
    return sorted(rows + gone, key=lambda row: not (row.state or row.problems))


def _rules_of(texts: Mapping[str, str]) -> dict[str, tuple[str, RuleFields]]:
    return {rule.id: (file, rule) for file, text in sorted(texts.items()) for rule in list_rules(text)}


def _compare_rule(rule: RuleFields, file: str, before: tuple[str, RuleFields] | None, problems: int) -> DraftRule:
    if before is None:
        return DraftRule(rule.id, file, rule.kind, "added", (), problems)
    old, new = before[1].as_dict(), rule.as_dict()
    changed = [name.replace("_", " ") for name in new if old[name] != new[name]]
    state = "changed" if changed else ""
    if rule.disabled and not before[1].disabled:
        state = "disabled"
    return DraftRule(rule.id, file, rule.kind, state, changed, problems)


def diff_files(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Unified, file by file; only what differs."""
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "").splitlines(), after.get(name, "").splitlines()
        lines += unified_diff(old, new, f"serving/{name}", f"draft/{name}", lineterm="")
    return lines[:DIFF_LINES]


@allow("edit_rules")
def add_rule(request: HeedRequest, pk: int) -> HttpResponse:
    return _edit(request, draft_write(request.user, pk), RuleFields("", "block"), OWN_FILE)


@allow("edit_rules")
def edit_rule(request: HeedRequest, pk: int, rule: str) -> HttpResponse:
    found = draft_write(request.user, pk)
    file = rule_drafts.find_file(found.files, rule)
    if file is None:
        raise Http404
    standing = next(item for item in list_rules(found.files[file]) if item.id == rule)
    return _edit(request, found, standing, file)


def _edit(request: HeedRequest, found: RuleDraft, standing: RuleFields, file: str) -> HttpResponse:
    initial = {**RuleForm.initial_of(standing), "file": file, "version": found.version}
    given: dict[str, Any] = {"files": sorted(found.files), "scopes": list_scopes(found), "initial": initial}
    form = RuleForm(request.POST, **given) if request.method == "POST" else RuleForm(**given)
    status = 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            edit = RuleEdit(form.cleaned_data["file"], form.rule(), standing.id)
            version = form.cleaned_data["version"]
            try:
                saved = rule_drafts.save_rule(found.pk, edit, version=version, by=request.user)
            except InvalidInput as error:
                form.add_error(None, error.detail)
            except DraftConflict as error:
                status = error.status
                form = RuleForm(newer_post(request, found.pk), **given)
                messages.warning(request, explain_conflict(error))
            else:
                return _tell_saved(request, saved, edit.rule.id)
    problems = [item for item in found.problems if standing.id and item["rule"] == standing.id]
    context = {"draft": found, "form": form, "rule": standing, "file": file, "problems": problems}
    return render(request, "feedback/edit_rule.html", context, status=status)


def newer_post(request: HeedRequest, pk: int) -> Any:
    """What was typed, with the version that stands now: saving again is then meant."""
    values = request.POST.copy()
    values["version"] = str(draft_read(request.user, pk).version)
    return values


def explain_conflict(error: DraftConflict) -> str:
    detail = error.detail[:1].upper() + error.detail[1:]
    again = "Saving again puts it in the place of what stands now."
    return f"{detail}. Nothing was written; what you typed is below. {again}"


def _tell_saved(request: HeedRequest, saved: RuleDraft, what: str) -> HttpResponse:
    if saved.is_valid:
        messages.success(request, f"{what} is saved; the draft is valid.")
    else:
        messages.warning(request, f"{what} is saved; the draft has {len(saved.problems)} problems, listed below.")
    return redirect("rule-draft", saved.pk)


def list_scopes(found: RuleDraft) -> list[str]:
    tables, _ = ml.read_texts(found.files)
    own = {name for content in tables.values() for name in content.get("scope", {}) if name != "pseudo"}
    return sorted(own | set(SCOPES))


@allow("edit_rules")
@require_POST
def remove_rule(request: HeedRequest, pk: int, rule: str) -> HttpResponse:
    found = draft_write(request.user, pk)
    version = refuse_invalid(VersionForm(request.POST))["version"]
    saved = rule_drafts.drop_rule(found.pk, rule, version=version, by=request.user)
    return _tell_saved(request, saved, f"Without {rule}, it")


@allow("edit_rules")
def rule_file(request: HeedRequest, pk: int, name: str) -> HttpResponse:
    found = draft_write(request.user, pk)
    if name not in found.files and name != OWN_FILE:
        raise Http404
    form = RuleFileForm(request.POST or None, initial={"text": found.files.get(name, ""), "version": found.version})
    status = 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            values = form.cleaned_data
            try:
                saved = rule_drafts.save_file(
                    found.pk, name, values["text"], version=values["version"], by=request.user
                )
            except DraftConflict as error:
                status = error.status
                form = RuleFileForm(newer_post(request, found.pk))
                messages.warning(request, explain_conflict(error))
            else:
                return _tell_saved(request, saved, name)
    problems = [item for item in found.problems if item["file"] == name]
    context = {"draft": found, "form": form, "name": name, "problems": problems}
    return render(request, "feedback/rule_file.html", context, status=status)


@allow("edit_rules")
@require_POST
def publish_rules(request: HeedRequest, pk: int) -> HttpResponse:
    found = draft_write(request.user, pk)
    values = refuse_invalid(PublishForm(request.POST))
    submitted = rule_drafts.submit(found.pk, version=values["version"], publishes=values["publishes"], by=request.user)
    assert submitted.run is not None, "submitting starts a run"
    return redirect("run", submitted.run.pk)


@allow("edit_rules")
@require_POST
def discard_rules(request: HeedRequest, pk: int) -> HttpResponse:
    rule_drafts.discard(draft_write(request.user, pk).pk, by=request.user)
    messages.info(request, f"Draft {pk} is discarded. Its text stays readable.")
    return redirect("rules")
