"""What each part of a release contributes: tables, plots, and the whole report as JSON."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.safestring import SafeString

from feedback import ml
from feedback.access import allow, release_read
from feedback.views.http import HeedRequest


@allow("train")
def ablation(request: HeedRequest, pk: int) -> HttpResponse:
    release = release_read(request.user, pk)
    report = release.report.get("ablation")
    context: dict[str, Any] = {"release": release, "report": report}
    if report:
        context["tables"] = ml.list_ablation_tables(report)
        context["plots"] = draw(release.pk, report["made"])
    return render(request, "feedback/ablation.html", context)


@allow("train")
def ablation_json(request: HeedRequest, pk: int) -> HttpResponse:
    release = release_read(request.user, pk)
    report = release.report.get("ablation")
    if not report:
        raise Http404
    name = f"ablation-{release.name}.json"
    return JsonResponse(report, headers={"content-disposition": f'attachment; filename="{name}"'})


@lru_cache(maxsize=8)
def draw(pk: int, made: str) -> list[tuple[str, SafeString]]:
    """Title and SVG. Drawing takes a second; `made` is the report's own time, so that a newer one is drawn anew."""
    report = ml.get_release(pk).report["ablation"]
    # Drawn here from figures and our own names; matplotlib escapes what it writes.
    return [(plot.title, SafeString(plot.svg)) for plot in ml.draw_ablation(report)]
