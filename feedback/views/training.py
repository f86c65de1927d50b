"""Launching runs, and watching one."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback import ml, queries
from feedback.access import allow, run_read, run_write
from feedback.forms import RunForm
from feedback.services import retraining
from feedback.views.http import HeedRequest, cut_page
from feedback.views.runs import show_run

KIND = "bert"


@allow("train")
def training(request: HeedRequest) -> HttpResponse:
    specs = ml.run_options(KIND)
    if request.method != "POST":
        return _show(request, RunForm(specs))
    form = RunForm(specs, request.POST)
    if not form.is_valid():
        return _show(request, form, status=400)
    publishes = form.cleaned_data["publishes"]
    launched = retraining.launch_run(KIND, options=form.options(), publishes=publishes, by=request.user)
    return redirect("run", launched.pk)


def _show(request: HeedRequest, form: RunForm, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "kind": KIND,
        "counts": queries.feedback_counts(),
        "page": cut_page(ml.list_runs(), request.GET.get("before"), size=20),
    }
    return render(request, "feedback/training.html", context, status=status)


@allow("train")
def run(request: HeedRequest, pk: int) -> HttpResponse:
    """Page and polled fragment in one; the fragment of an ended run tells htmx to stop asking."""
    found = run_read(request.user, pk)
    context: dict[str, Any] = {"run": found, "shown": show_run(found)}
    if not request.htmx:
        return render(request, "feedback/run.html", context)
    response = render(request, "feedback/_run.html", context)
    if found.is_ended:
        response.status_code = HttpResponseStopPolling.status_code
    return response


@allow("train")
@require_POST
def cancel_run(request: HeedRequest, pk: int) -> HttpResponse:
    retraining.cancel(run_write(request.user, pk), by=request.user)
    return redirect("run", pk)
