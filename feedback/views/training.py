"""Setting runs up, launching them, and watching one."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST
from django_htmx.http import HttpResponseStopPolling

from feedback import ml, queries
from feedback.access import allow, run_read, run_write
from feedback.errors import InvalidInput
from feedback.forms import NEW_SNAPSHOT, CompareForm, RunForm, refuse_invalid
from feedback.services import notices, retraining
from feedback.views.http import HeedRequest, cut_page
from feedback.views.runs import ComparedPart, compare_curves, show_run


@allow("train")
def training(request: HeedRequest) -> HttpResponse:
    context = {
        "kinds": ml.list_kinds(),
        "counts": queries.feedback_counts(),
        "queue": queries.list_queue(),
        "page": cut_page(ml.list_runs(), request.GET.get("before"), size=20),
    }
    return render(request, "feedback/training.html", context)


@allow("train")
def launch_run(request: HeedRequest, kind: str) -> HttpResponse:
    """The wizard: what a run of this kind would take and lack, again for what was typed, then the run itself."""
    if kind not in ml.list_kinds():
        raise Http404
    specs = ml.run_options(kind)
    original = run_read(request.user, int(pk)) if (pk := request.GET.get("clone", "")).isdecimal() else None
    if original is not None and original.kind != kind:
        raise InvalidInput(f"run {original.pk} is of kind {original.kind}: clone it from its own page")
    initial = clone_values(original) if original else {"snapshot": NEW_SNAPSHOT}
    if request.method != "POST":
        return _show_wizard(request, kind, RunForm(specs, initial=initial), original)
    form = RunForm(specs, request.POST, initial=initial)
    if not form.is_valid():
        return _show_wizard(request, kind, form, original, status=400)
    launch = read_launch(kind, form, original)
    if "check" in request.POST or request.htmx:
        return _show_wizard(request, kind, form, original, launch)
    if refusal := retraining.forecast(launch).refusal:
        form.add_error(None, refusal)
        return _show_wizard(request, kind, form, original, launch, status=409)
    launched = retraining.launch_run(launch, by=request.user)
    return redirect("run", launched.pk)


def clone_values(run: ml.TrainingRun) -> dict[str, Any]:
    """The form's values that make the same run again."""
    data = {"snapshot": run.snapshot.content_hash, "base": run.config.get("base", ""), "publishes": run.publishes}
    return ml.list_options(run) | data


def read_launch(kind: str, form: RunForm, original: ml.TrainingRun | None) -> retraining.Launch:
    return retraining.Launch(
        kind,
        options=form.options(),
        publishes=form.cleaned_data["publishes"],
        snapshot=form.chosen_snapshot(),
        base=form.cleaned_data["base"],
        cloned_from=original.pk if original else None,
    )


def _show_wizard(
    request: HeedRequest,
    kind: str,
    form: RunForm,
    original: ml.TrainingRun | None,
    launch: retraining.Launch | None = None,
    status: int = 200,
) -> HttpResponse:
    """Without a `launch`, the forecast is for what the form opens with; there is none for a form with mistakes."""
    if launch is None and not form.is_bound:
        launch = open_launch(kind, form)
    context = {
        "kinds": ml.list_kinds(),
        "kind": kind,
        "recipe": ml.list_kinds()[kind],
        "makes_release": ml.makes_release(kind),
        "form": form,
        "original": original,
        "counts": queries.feedback_counts(),
        "forecast": retraining.forecast(launch) if launch else None,
    }
    # A form with mistakes gets no fragment: htmx would put it where the forecast stands.
    template = "feedback/_forecast.html" if request.htmx else "feedback/launch.html"
    return render(request, template, context, status=200 if request.htmx else status)


def open_launch(kind: str, form: RunForm) -> retraining.Launch:
    values = form.initial
    chosen = str(values.get("snapshot", NEW_SNAPSHOT))
    return retraining.Launch(
        kind,
        options={spec.name: values[spec.name] for spec in form.specs if spec.name in values},
        snapshot=None if chosen == NEW_SNAPSHOT else ml.find_snapshot(chosen),
        base=str(values.get("base", "")),
    )


@allow("train")
def run(request: HeedRequest, pk: int) -> HttpResponse:
    """Page and polled fragment in one; the fragment of an ended run tells htmx to stop asking."""
    found = run_read(request.user, pk)
    if found.is_ended:
        notices.see_notices(request.user, run=found)
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


@allow("train")
def run_json(request: HeedRequest, pk: int) -> HttpResponse:
    """Everything that is kept of a run, to be read by other programs."""
    found = run_read(request.user, pk)
    headers = {"content-disposition": f'attachment; filename="run-{found.pk}.json"'}
    return JsonResponse(ml.describe_run(found), headers=headers)


@allow("train")
def compare_runs(request: HeedRequest) -> HttpResponse:
    wanted = refuse_invalid(CompareForm(request.GET))
    runs = [run_read(request.user, pk) for pk in wanted["run"]]
    parts = [
        ComparedPart(title, [line for line in lines if line.differs], [line for line in lines if not line.differs])
        for title, lines in ml.compare_runs(runs).items()
    ]
    context = {"runs": runs, "parts": parts, "curves": compare_curves(runs, wanted["curve"])}
    return render(request, "feedback/compare_runs.html", context)
