"""Who is in, who is invited, and the door by which an invited person comes in."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from feedback import queries
from feedback.access import ANONYMOUS, allow, person_write
from feedback.errors import InvalidInput
from feedback.forms import AcceptForm, InviteForm, RolesForm, refuse_invalid
from feedback.models import Role
from feedback.services import people as service
from feedback.views.http import HeedRequest


@never_cache
@allow("manage_people")
def people(request: HeedRequest) -> HttpResponse:
    form = InviteForm(request.POST or None)
    link = ""
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        _, token = service.invite(role=values["role"], note=values["note"], by=request.user)
        # Shown by this one answer and kept nowhere: not in a message, not in the session.
        link = request.build_absolute_uri(reverse("invitation", args=[token]))
        form = InviteForm()
    context = {
        "form": form,
        "link": link,
        "people": queries.list_people(),
        "invitations": queries.list_invitations()[:50],
        "roles": Role.choices,
    }
    return render(request, "feedback/people.html", context)


@allow("manage_people")
@require_POST
def set_person_active(request: HeedRequest, pk: int) -> HttpResponse:
    person = person_write(request.user, pk)
    is_active = request.POST.get("is_active") == "1"
    service.set_active(person, is_active=is_active, by=request.user)
    messages.success(request, f"{person.username}: account {'opened' if is_active else 'closed'}.")
    return redirect("people")


@allow("manage_people")
@require_POST
def set_person_roles(request: HeedRequest, pk: int) -> HttpResponse:
    person = person_write(request.user, pk)
    roles = refuse_invalid(RolesForm(request.POST))["roles"]
    service.set_roles(person, roles=roles, by=request.user)
    messages.success(request, f"{person.username}: {', '.join(roles) or 'no role'}.")
    return redirect("people")


@sensitive_post_parameters("password", "password_again")
@never_cache
@allow(ANONYMOUS)
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    invited = service.open_invitation(token)
    form = AcceptForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        try:
            person = service.accept_invitation(token, username=values["username"], password=values["password"])
        except InvalidInput as error:
            form.add_error(None, error.detail)
        else:
            login(request, person, backend="django.contrib.auth.backends.ModelBackend")
            return redirect("home")
    status = 400 if form.is_bound else 200
    return render(request, "feedback/invitation.html", {"form": form, "invitation": invited}, status=status)
