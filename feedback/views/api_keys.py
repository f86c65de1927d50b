"""The keys of a person's programs."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from feedback.access import SIGNED_IN, allow, api_key_write
from feedback.forms import ApiKeyForm
from feedback.services import people as service
from feedback.views.http import HeedRequest


@never_cache
@allow(SIGNED_IN)
def api_keys(request: HeedRequest) -> HttpResponse:
    form = ApiKeyForm(request.POST or None)
    token = ""
    if request.method == "POST" and form.is_valid():
        # Shown by this one answer and kept nowhere.
        _, token = service.issue_api_key(request.user, name=form.cleaned_data["name"])
        form = ApiKeyForm()
    context = {"form": form, "token": token, "keys": request.user.api_keys.order_by("-pk")}
    return render(request, "feedback/api_keys.html", context)


@allow(SIGNED_IN)
@require_POST
def revoke_api_key(request: HeedRequest, pk: int) -> HttpResponse:
    key = api_key_write(request.user, pk)
    service.revoke_api_key(key, by=request.user)
    messages.success(request, f"The key “{key.name}” no longer opens anything.")
    return redirect("api-keys")
