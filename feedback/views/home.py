"""Where a person lands, and the pages that explain."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import redirect, render

from feedback.access import SIGNED_IN, allow, may
from feedback.models.labels import SCHEMA
from feedback.views.http import HeedRequest

LANDINGS = (("manage_people", "documents"), ("moderate", "cases"), ("annotate", "annotate"))
"""The first page whose verb the person's role allows."""


@allow(SIGNED_IN)
def home(request: HeedRequest) -> HttpResponse:
    for verb, route in LANDINGS:
        if may(request.user, verb):
            return redirect(route)
    return render(request, "feedback/no_role.html")


@allow(SIGNED_IN)
def about(request: HeedRequest) -> HttpResponse:
    return render(request, "feedback/about.html")


@allow("read_documents")
def guidelines(request: HeedRequest) -> HttpResponse:
    return render(
        request, "feedback/guidelines.html", {"dimensions": SCHEMA.dimensions, "guideline_version": SCHEMA.version}
    )
