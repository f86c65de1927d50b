"""Moderation: the queue without texts, and one case whose text comes only when asked for."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST

from feedback import queries
from feedback.access import allow, case_read, case_write
from feedback.errors import StaleClaim
from feedback.forms import ClaimForm, DecisionForm
from feedback.models import Document, RiskCase
from feedback.models.labels import SCHEMA
from feedback.services import moderation
from feedback.views.cards import make_card
from feedback.views.http import HeedRequest

MAX_SHOWN = 200


@allow("moderate")
def cases(request: HeedRequest) -> HttpResponse:
    waiting = list(queries.open_cases()[: MAX_SHOWN + 1])
    context = {
        "cases": waiting[:MAX_SHOWN],
        "has_more": len(waiting) > MAX_SHOWN,
        "counts": queries.case_counts(),
        "now": timezone.now(),
        "targets": [(RiskCase.Band(band).label, target) for band, target in RiskCase.TARGET.items()],
    }
    return render(request, "feedback/_cases.html" if request.htmx else "feedback/cases.html", context)


@allow("moderate")
@require_POST
def claim_case(request: HeedRequest) -> HttpResponse:
    claimed = moderation.claim_next(request.user)
    if claimed is None:
        messages.info(request, "No case is free. Those that are left are in other hands.")
        return redirect("cases")
    return redirect("case", claimed.pk)


@allow("moderate")
def case(request: HeedRequest, pk: int) -> HttpResponse:
    return render(request, "feedback/case.html", _context(request, case_read(request.user, pk)))


def _context(request: HeedRequest, found: RiskCase, document: Document | None = None) -> dict[str, Any]:
    """`document` only after the text has been asked for."""
    is_mine = found.claimed_by_id == request.user.pk and found.decided_at is None
    return {
        "case": found,
        "is_mine": is_mine,
        "document": document,
        "card": make_card(document) if document else None,
        "decisions": found.decisions.select_related("person").order_by("-pk"),
        "dimensions": SCHEMA.dimensions,
    }


@allow("moderate")
@require_POST
def reveal_case(request: HeedRequest, pk: int) -> HttpResponse:
    token = ClaimForm(request.POST).claim_token()
    found = case_write(request.user, pk)
    document = moderation.reveal(found.pk, token=token, by=request.user)
    template = "feedback/_case_text.html" if request.htmx else "feedback/case.html"
    return render(request, template, _context(request, found, document))


@allow("moderate")
@require_POST
def decide_case(request: HeedRequest, pk: int) -> HttpResponse:
    found = case_write(request.user, pk)
    answer = DecisionForm(request.POST).answer()
    try:
        decision = moderation.decide_case(found.pk, answer, by=request.user)
    except StaleClaim as error:
        messages.error(request, f"Case {found.pk}: {error.detail}. Nothing was written.")
        return redirect("cases")
    messages.success(request, f"Case {found.pk}: {decision.get_outcome_display()}.")
    return redirect("cases")


@allow("moderate")
@require_POST
def hand_back_case(request: HeedRequest, pk: int) -> HttpResponse:
    token = ClaimForm(request.POST).claim_token()
    moderation.hand_back(case_write(request.user, pk).pk, token=token, by=request.user)
    messages.info(request, f"Case {pk} is back in the queue.")
    return redirect("cases")
