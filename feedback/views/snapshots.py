"""What a snapshot holds and leaves out: before it is frozen, and afterwards."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render

from feedback import ml
from feedback.access import allow, snapshot_read
from feedback.forms import SnapshotForm
from feedback.services import snapshots
from feedback.views.http import HeedRequest
from feedback.views.snapshot_tables import list_changes, list_tables


@allow("train")
def preview_snapshot(request: HeedRequest) -> HttpResponse:
    """GET shows what would be frozen with the options of the address; POST freezes it."""
    given = request.POST if request.method == "POST" else request.GET
    form = SnapshotForm(
        asdict(ml.SnapshotOptions()) | {name: given[name] for name in SnapshotForm.base_fields if name in given}
    )
    if not form.is_valid():
        return render(request, "feedback/preview_snapshot.html", {"form": form}, status=400)
    if request.method == "POST":
        return redirect("snapshot", snapshots.freeze(form.options(), by=request.user).pk)
    shown = snapshots.preview(form.options())
    context: dict[str, Any] = {"form": form, "preview": shown, "last": shown.last}
    return render(request, "feedback/preview_snapshot.html", context | _describe(shown.manifest, shown.differences))


@allow("train")
def snapshot(request: HeedRequest, pk: int) -> HttpResponse:
    found = snapshot_read(request.user, pk)
    last, differences = ml.diff_to_previous(found)
    context: dict[str, Any] = {"snapshot": found, "last": last}
    return render(request, "feedback/snapshot.html", context | _describe(found.manifest, differences))


def _describe(manifest: Any, differences: list[ml.Difference]) -> dict[str, Any]:
    return {"manifest": manifest, "tables": list_tables(manifest), "changes": list_changes(differences)}
