"""The rules that serve, with what people's answers say of each; and the drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import redirect, render

from feedback import ml, queries
from feedback.access import allow
from feedback.services import rule_drafts
from feedback.views.http import HeedRequest, cut_page
from feedback.views.rule_forms import OpenDraftForm


@dataclass(frozen=True, slots=True)
class ShownRule:
    rule: ml.Rule
    precision: ml.Precision | None
    """Over what people have said until now; None before anybody has said anything."""
    recent: int

    @property
    def effect(self) -> str:
        rule = self.rule
        if rule.kind == "block":
            return f"risk at least {rule.floor}" + (f", {rule.emotion}" if rule.emotion else "")
        if rule.kind == "allow":
            return ", ".join(rule.labels.values())
        return "asks the LLM, silences allow rules"

    @property
    def force(self) -> str:
        """Whether its hits count, in words; empty where that is no question."""
        if self.rule.disabled:
            return "disabled"
        if self.rule.kind != "allow":
            return ""
        if self.rule.builtin:
            return "vouched for"
        if self.rule.is_active:
            has_lost_it = self.precision is not None and not self.precision.is_earned
            return "earned once, no longer: publish a draft" if has_lost_it else "earned"
        may_have_it = self.precision is not None and self.precision.is_earned
        return "earned now: publish a draft" if may_have_it else "on trial: decides nothing"


@allow("edit_rules")
def rules(request: HeedRequest) -> HttpResponse:
    form = OpenDraftForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        draft = rule_drafts.open_draft(note=form.cleaned_data["note"], by=request.user)
        return redirect("rule-draft", draft.pk)
    release = ml.serving_release()
    context = {
        "form": form,
        "release": release,
        "rules": list_rules(release) if release else [],
        "bar": ml.EARNED_LOW,
        "page": cut_page(queries.list_drafts(), request.GET.get("before"), size=20),
    }
    return render(request, "feedback/rules.html", context, status=400 if form.is_bound else 200)


def list_rules(release: ml.Release) -> Sequence[ShownRule]:
    """Empty where the bundle is not on this machine's disk; the page says so."""
    try:
        found = ml.load_rules(release)
    except ml.BundleGone:
        return []
    measured, recent = queries.measure_rules(found), queries.recent_hits()
    return [ShownRule(rule, measured.get(rule.id), recent.get(rule.id, 0)) for rule in found.rules]
