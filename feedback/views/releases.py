"""The append-only history of what served."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from feedback import ml, queries
from feedback.access import allow, release_write
from feedback.forms import RollBackForm
from feedback.services import retraining
from feedback.views.http import HeedRequest, cut_page
from feedback.views.runs import list_gates

REPORTS = ("report", "previous__report", "restores__report", "version__metrics", "version__run__series")
"""Long, and not in the list."""


@allow("train")
def releases(request: HeedRequest) -> HttpResponse:
    context = {
        "page": cut_page(ml.list_releases().defer(*REPORTS), request.GET.get("before")),
        "serving": ml.serving_release(),
        "status": ml.inference_status(),
        "agreement": {row.release: row for row in queries.agreement_by_release()},
    }
    return render(request, "feedback/releases.html", context)


@allow("train")
def roll_back(request: HeedRequest, pk: int) -> HttpResponse:
    """Asks for the reason first; serving the old bundle again is a new entry of the history."""
    release = release_write(request.user, pk)
    form = RollBackForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = retraining.roll_back(release, reason=form.cleaned_data["reason"], by=request.user)
        messages.success(request, f"{made.name} serves now: the bundle of {release.name}.")
        return redirect("releases")
    context = {
        "release": release,
        "form": form,
        "serving": ml.serving_release(),
        "gates": list_gates(release.report),
    }
    return render(request, "feedback/roll_back.html", context, status=400 if request.method == "POST" else 200)
