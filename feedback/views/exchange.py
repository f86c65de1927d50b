"""Answers out and in."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from feedback import queries
from feedback.access import allow
from feedback.errors import InvalidInput
from feedback.forms import FeedbackFileForm
from feedback.models import IntakeBatch
from feedback.services import feedback_file
from feedback.views.http import HeedRequest


@allow("exchange_feedback")
def feedback(request: HeedRequest) -> HttpResponse:
    return _show(request, FeedbackFileForm())


def _show(request: HeedRequest, form: FeedbackFileForm, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "counts": queries.feedback_counts(),
        "agreement": queries.agreement_by_release(),
        "imports": queries.list_batches().filter(kind=IntakeBatch.Kind.FEEDBACK)[:10],
    }
    return render(request, "feedback/feedback.html", context, status=status)


@allow("exchange_feedback")
@require_POST
def import_feedback(request: HeedRequest) -> HttpResponse:
    form = FeedbackFileForm(request.POST, request.FILES)
    if not form.is_valid():
        return _show(request, form, status=400)
    file = form.cleaned_data["file"]
    try:
        batch = feedback_file.import_feedback(file.read(), by=request.user, name=file.name)
    except InvalidInput as error:
        form.add_error("file", error.detail)
        return _show(request, form, status=400)
    return redirect("batch", batch.pk)


@allow("exchange_feedback")
@require_GET
def export_feedback(request: HeedRequest) -> StreamingHttpResponse:
    return _download(feedback_file.iter_feedback_file(), "application/json", "feedback", "json")


@allow("exchange_feedback")
@require_GET
def export_records(request: HeedRequest) -> StreamingHttpResponse:
    return _download(feedback_file.iter_records_jsonl(), "application/x-ndjson", "records", "jsonl")


def _download(chunks: Iterator[bytes], content_type: str, stem: str, ending: str) -> StreamingHttpResponse:
    response = StreamingHttpResponse(chunks, content_type=content_type)
    name = f"heed-{stem}-{timezone.localdate():%Y-%m-%d}.{ending}"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
