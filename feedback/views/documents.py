"""The list of texts, and one text with all that is known of it."""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django_htmx.http import push_url

from feedback import queries
from feedback.access import allow, document_read, may
from feedback.forms import FilterForm
from feedback.models import Document
from feedback.models.labels import SCHEMA
from feedback.queries import DocumentFilter
from feedback.views.cards import make_card
from feedback.views.http import HeedRequest, cut_page

PAGE_SIZE = 50


@allow("read_documents")
def documents(request: HeedRequest) -> HttpResponse:
    """Page and fragment in one. The search is posted, since what is searched for must not stand in a URL."""
    form = FilterForm(request.POST if request.method == "POST" else request.GET)
    wanted = form.wanted()
    before = form.cleaned_data["before"]
    context = {
        "page": cut_page(queries.list_documents(wanted), before, size=PAGE_SIZE),
        "wanted": wanted,
        "states": Document.State.values,
        "risks": SCHEMA["risk"].names,
        "emotions": SCHEMA["emotion"].names,
        "may_add": may(request.user, "add_documents"),
        "is_filtered": wanted != DocumentFilter(),
    }
    if not request.htmx:
        return render(request, "feedback/documents.html", context)
    if before:
        return render(request, "feedback/_document_rows.html", context)
    return push_url(render(request, "feedback/_documents.html", context), url_of(wanted))


def url_of(wanted: DocumentFilter) -> str:
    """A link that can be kept; without the search."""
    chosen = {name: value for name in ("state", "risk", "emotion") if (value := getattr(wanted, name))}
    return reverse("documents") + (f"?{urlencode(chosen)}" if chosen else "")


@allow("read_documents")
def document(request: HeedRequest, pk: int) -> HttpResponse:
    found = document_read(request.user, pk)
    context = {
        "document": found,
        "card": make_card(found),
        "annotations": queries.list_annotations(found),
        "predictions": queries.list_predictions(found),
        "case": queries.list_cases().filter(document=found).first(),
        "may_moderate": may(request.user, "moderate"),
    }
    return render(request, "feedback/document.html", context)
