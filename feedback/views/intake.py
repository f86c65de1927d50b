"""Texts in: paste or file; and what became of each row."""

from __future__ import annotations

from collections.abc import Iterable

from django.http import HttpResponse
from django.shortcuts import redirect, render

from feedback import queries
from feedback.access import allow, batch_read
from feedback.errors import InvalidInput
from feedback.forms import FileForm, PasteForm
from feedback.models import IntakeBatch
from feedback.services import intake as service
from feedback.services.intake import Parsed
from feedback.views.http import HeedRequest, cut_page

MAX_SHOWN_PROBLEMS = 500


@allow("add_documents")
def intake(request: HeedRequest) -> HttpResponse:
    if request.method != "POST":
        return _show(request, PasteForm(), FileForm())
    if "texts" in request.POST:
        return _paste(request)
    return _upload(request)


def _paste(request: HeedRequest) -> HttpResponse:
    form = PasteForm(request.POST)
    if not form.is_valid():
        return _show(request, form, FileForm(), status=400)
    return _keep(request, service.parse_paste(form.cleaned_data["texts"]), IntakeBatch.Kind.PASTE)


def _upload(request: HeedRequest) -> HttpResponse:
    form = FileForm(request.POST, request.FILES)
    if not form.is_valid():
        return _show(request, PasteForm(), form, status=400)
    file = form.cleaned_data["file"]
    try:
        rows = service.parse_file(file.name, file.read())
    except InvalidInput as error:
        form.add_error("file", error.detail)
        return _show(request, PasteForm(), form, status=400)
    is_table = file.name.lower().endswith((".csv", ".tsv"))
    return _keep(request, rows, IntakeBatch.Kind.CSV if is_table else IntakeBatch.Kind.JSONL, file.name)


def _keep(request: HeedRequest, rows: Iterable[Parsed], kind: str, name: str = "") -> HttpResponse:
    batch_ = service.add_documents(rows, kind=kind, by=request.user, name=name)
    return redirect("batch", batch_.pk)


def _show(request: HeedRequest, paste: PasteForm, file: FileForm, status: int = 200) -> HttpResponse:
    page = cut_page(queries.list_batches(), request.GET.get("before"), size=20)
    context = {"paste_form": paste, "file_form": file, "page": page}
    return render(request, "feedback/intake.html", context, status=status)


@allow("add_documents")
def batch(request: HeedRequest, pk: int) -> HttpResponse:
    found = batch_read(request.user, pk)
    context = {
        "batch": found,
        "problems": found.problems[:MAX_SHOWN_PROBLEMS],
        "hidden_problems": max(0, len(found.problems) - MAX_SHOWN_PROBLEMS),
    }
    return render(request, "feedback/batch.html", context)
