"""Trying a draft out, and what the try-out has shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback import queries
from feedback.access import allow, change_read, draft_read, draft_write
from feedback.forms import refuse_invalid
from feedback.models import RuleChange, RuleTryout
from feedback.services import rule_tryouts
from feedback.views.http import HeedRequest, cut_page
from feedback.views.rule_forms import TryoutForm

KINDS: Mapping[str, str] = {
    "floor_raised": "floor raised",
    "floor_lowered": "floor lowered",
    "forced": "labels forced anew",
    "freed": "labels no longer forced",
    "label_changed": "decision changed",
    "evidence_gained": "evidence gained",
    "evidence_lost": "evidence lost",
    "asks_llm": "the LLM would be asked",
}


@dataclass(frozen=True, slots=True)
class ShownChange:
    row: RuleChange

    @property
    def name(self) -> str:
        return f"#{self.row.document_id}" if self.row.document_id else str((self.row.case or {})["id"])

    @property
    def kinds(self) -> Sequence[str]:
        return [KINDS[kind] for kind in self.row.kinds]

    @property
    def rules(self) -> Sequence[str]:
        """`+ rule` for evidence that only the draft has, `− rule` for what it loses."""
        before, after = ({_hit(item) for item in side["evidence"]} for side in (self.row.before, self.row.after))
        return [f"+ {hit}" for hit in sorted(after - before)] + [f"− {hit}" for hit in sorted(before - after)]

    @property
    def labels(self) -> Sequence[str]:
        """What the decision becomes, dimension by dimension."""
        before, after = self.row.before["labels"], self.row.after["labels"]
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return [f"{name} {before.get(name, 'withheld')} → {after.get(name, 'withheld')}" for name in names]


def _hit(item: Mapping[str, Any]) -> str:
    return f"{item['rule']} ({str(item['scope']).replace('_', ' ')})"


@allow("edit_rules")
@require_POST
def try_rules(request: HeedRequest, pk: int) -> HttpResponse:
    found = draft_write(request.user, pk)
    values = refuse_invalid(TryoutForm(request.POST, request.FILES))
    file = values["suite"]
    suite = rule_tryouts.read_suite(file.read(), file.name) if file else rule_tryouts.configured_suite()
    rule_tryouts.start_tryout(
        found.pk, version=values["version"], wanted=values["documents"], suite=suite, by=request.user
    )
    return redirect("rule-draft", pk)


@allow("edit_rules")
def tryout(request: HeedRequest, pk: int) -> HttpResponse:
    """The polled part of the draft's page; an ended try-out tells htmx to stop asking."""
    found = draft_read(request.user, pk)
    newest = queries.newest_tryout(found)
    if not request.htmx:
        return redirect("rule-draft", pk)
    context = {"draft": found, "tryout": newest, "is_stale": newest and newest.draft_version != found.version}
    response = render(request, "feedback/_rule_tryout.html", context)
    if newest is None or not newest.is_live:
        response.status_code = HttpResponseStopPolling.status_code
    return response


@allow("edit_rules")
def changes(request: HeedRequest, pk: int) -> HttpResponse:
    found = draft_read(request.user, pk)
    newest = queries.newest_tryout(found)
    if newest is None:
        raise Http404
    kind = request.GET.get("kind", "")
    rows = cut_page(queries.list_changes(newest, kind if kind in KINDS else ""), request.GET.get("before"), size=50)
    context = {
        "draft": found,
        "tryout": newest,
        "kind": kind,
        "kinds": list_counts(newest),
        "page": rows,
        "changes": [ShownChange(row) for row in rows.rows],
    }
    return render(request, "feedback/rule_changes.html", context)


def list_counts(found: RuleTryout) -> list[tuple[str, str, int]]:
    """Kind, its words, and how many texts it touches."""
    return [(kind, words, found.counts.get(kind, 0)) for kind, words in KINDS.items()]


@allow("edit_rules")
@require_POST
def reveal_change(request: HeedRequest, pk: int) -> HttpResponse:
    row = change_read(request.user, pk)
    text = rule_tryouts.reveal(row, by=request.user)
    template = "feedback/_rule_change_text.html" if request.htmx else "feedback/rule_change.html"
    return render(request, template, {"row": row, "text": text})
