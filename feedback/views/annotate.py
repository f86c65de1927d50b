"""The annotation card. Every answer comes back with the next card: one exchange from verdict to next text."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django_htmx.http import reswap, retarget

from feedback import queries
from feedback.access import allow, annotation_write, document_read
from feedback.errors import AnswerConflict, FeedbackError, Problem, UndoRefused, describe
from feedback.forms import AnswerForm, FlagForm, refuse_invalid
from feedback.ml import SchemaError
from feedback.models import Annotation, Document, Person
from feedback.models.labels import SCHEMA
from feedback.services import annotation as service
from feedback.views.cards import make_card
from feedback.views.http import HeedRequest, cut_page

AHEAD = 5
"""Texts in hand: the one on the card and those after it."""
PAGE_MARK_S = 24 * 3600


def workbench(person: Person, *, first: Document | None = None, earlier: Annotation | None = None) -> dict[str, Any]:
    """The context of card and history. `first` is shown before the more urgent ones in hand."""
    waiting = take_in_hand(person)
    if first is not None:
        waiting = [item for item in waiting if item.pk == first.pk] + [item for item in waiting if item.pk != first.pk]
    card = make_card(waiting[0], earlier=earlier) if waiting else None
    return {
        "card": card,
        "idempotency_key": uuid4(),
        "history": list(queries.undoable(person)),
        "counts": None if card else queries.queue_counts(),
        "dimensions": SCHEMA.dimensions,
        "lease_s": settings.ASSIGNMENT_LEASE_S,
    }


def take_in_hand(person: Person) -> list[Document]:
    """What the person holds, topped up before it runs out."""
    held = list(queries.documents_in_hand(person))
    if len(held) > 1:
        return held
    return held + service.claim_documents(person, count=AHEAD - len(held))


@allow("annotate")
def annotate(request: HeedRequest) -> HttpResponse:
    mark = secrets.token_urlsafe(9)
    cache.set(_mark_key(request.user), mark, PAGE_MARK_S)
    return render(request, "feedback/annotate.html", workbench(request.user) | {"page_mark": mark})


def _mark_key(person: Person) -> str:
    return f"annotate-page-{person.pk}"


@allow("annotate")
@require_POST
def submit_annotation(request: HeedRequest) -> HttpResponse:
    try:
        kept = service.submit_annotation(AnswerForm(request.POST).submission(), by=request.user)
    except AnswerConflict as error:
        # Whatever stood in the way, this card is finished: the next one comes with the reason.
        return _swap(request, workbench(request.user), problem=describe(error))
    except (FeedbackError, SchemaError) as error:
        return _refuse(request, describe(error))
    return _swap(request, workbench(request.user), said=f"Saved: {kept.get_verdict_display()}.")


@allow("annotate")
@require_POST
def undo_annotation(request: HeedRequest) -> HttpResponse:
    """The answer that `annotation` names, else the newest."""
    chosen = request.POST.get("annotation", "")
    newest = queries.undoable(request.user).first() if not chosen else None
    if not chosen and newest is None:
        return _swap(request, workbench(request.user), said="There is no answer to undo.")
    annotation = newest or annotation_write(request.user, int(chosen) if chosen.isdecimal() else 0)
    try:
        document = service.undo_annotation(annotation, by=request.user)
    except UndoRefused as error:
        return _swap(request, workbench(request.user), problem=describe(error))
    context = workbench(request.user, first=document, earlier=annotation)
    is_back = context["card"] is not None and context["card"].document.pk == document.pk
    said = "Undone: here is the text again." if is_back else "Undone. Somebody else has that text in hand now."
    return _swap(request, context, said=said)


def _swap(
    request: HeedRequest, context: dict[str, Any], *, said: str = "", problem: Problem | None = None
) -> HttpResponse:
    context |= {"said": said, "problem": problem}
    status = problem.status if problem else 200
    if not request.htmx:
        return render(request, "feedback/annotate.html", context, status=status) if problem else redirect("annotate")
    response = render(request, "feedback/_workbench_swap.html", context, status=status)
    # Otherwise htmx would put the answer of a refused request above the card.
    return reswap(retarget(response, "#workbench"), "outerHTML") if problem else response


def _refuse(request: HeedRequest, problem: Problem | None) -> HttpResponse:
    """The card stays as it is; the reason stands above it."""
    status = problem.status if problem else 400
    return retarget(render(request, "feedback/error.html", {"problem": problem}, status=status), "#notice")


@allow("annotate")
@require_POST
def flag_document(request: HeedRequest) -> HttpResponse:
    values = refuse_invalid(FlagForm(request.POST))
    document = document_read(request.user, values["document"])
    service.flag_document(document, by=request.user, note=values["comment"])
    if not request.htmx:
        return redirect("annotate")
    return render(request, "feedback/_flagged.html", {"document": document})


@allow("annotate")
@require_POST
def renew_claims(request: HeedRequest) -> HttpResponse:
    service.renew_claims(request.user)
    return HttpResponse(status=204)


@allow("annotate")
@require_POST
def release_claims(request: HeedRequest) -> HttpResponse:
    """A page that is left puts its texts back; one that was reloaded or opened anew since does not."""
    if request.POST.get("page_mark", "") == cache.get(_mark_key(request.user)):
        service.release_claims(request.user)
    return HttpResponse(status=204)


@allow("annotate")
def my_annotations(request: HeedRequest) -> HttpResponse:
    page = cut_page(queries.own_annotations(request.user), request.GET.get("before"))
    template = "feedback/_my_annotation_rows.html" if request.htmx else "feedback/my_annotations.html"
    undoable = set(queries.undoable(request.user).values_list("pk", flat=True))
    return render(request, template, {"page": page, "undoable": undoable})
