"""What Heed tells a person."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from feedback.access import allow
from feedback.services import notices as service
from feedback.views.http import HeedRequest, cut_page


@allow("train")
def notices(request: HeedRequest) -> HttpResponse:
    page = cut_page(service.list_notices(request.user), request.GET.get("before"))
    rows = [(notice, service.describe(notice.run)) for notice in page.rows]
    return render(request, "feedback/notices.html", {"page": page, "rows": rows})


@allow("train")
@require_POST
def see_notices(request: HeedRequest) -> HttpResponse:
    service.see_notices(request.user)
    return redirect("notices")
