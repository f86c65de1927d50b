"""Who may do what. One table of verbs, one of routes, one lookup per noun; both doors (HTML and API) use these alone.

No role: 404, as if nothing were here. Too little role: 403. Not signed in: the login page, or 401 from the API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase

from feedback import ml
from feedback.errors import show_errors
from feedback.models import (
    Annotation,
    ApiKey,
    Document,
    IntakeBatch,
    Invitation,
    Person,
    RiskCase,
    Role,
    RuleChange,
    RuleDraft,
)

ANONYMOUS = "anonymous"
"""Open to everybody."""
SIGNED_IN = "signed_in"
"""Open to everybody who is signed in, with or without a role."""
SUPERUSER = "superuser"
"""Django's admin: for an operator, whatever roles they have."""

PERMISSIONS: Mapping[str, frozenset[str]] = {
    "read_documents": frozenset({Role.ANNOTATOR, Role.MODERATOR, Role.ADMIN}),
    "add_documents": frozenset({Role.ADMIN}),
    "annotate": frozenset({Role.ANNOTATOR, Role.ADMIN}),
    "exchange_feedback": frozenset({Role.ADMIN}),
    "moderate": frozenset({Role.MODERATOR, Role.ADMIN}),
    "train": frozenset({Role.ADMIN}),
    "edit_rules": frozenset({Role.ADMIN}),
    "manage_people": frozenset({Role.ADMIN}),
}

ROUTES: Mapping[str, str | Mapping[str, str]] = {
    # The pages. The same verb stands on the view, as its `allow`.
    "home": SIGNED_IN,
    "about": SIGNED_IN,
    "guidelines": "read_documents",
    "documents": "read_documents",
    "document": "read_documents",
    "intake": "add_documents",
    "batch": "add_documents",
    "annotate": "annotate",
    "submit-annotation": "annotate",
    "undo-annotation": "annotate",
    "flag-document": "annotate",
    "renew-claims": "annotate",
    "release-claims": "annotate",
    "my-annotations": "annotate",
    "feedback": "exchange_feedback",
    "import-feedback": "exchange_feedback",
    "export-feedback": "exchange_feedback",
    "export-records": "exchange_feedback",
    "cases": "moderate",
    "claim-case": "moderate",
    "case": "moderate",
    "reveal-case": "moderate",
    "decide-case": "moderate",
    "hand-back-case": "moderate",
    "training": "train",
    "preview-snapshot": "train",
    "snapshot": "train",
    "run": "train",
    "cancel-run": "train",
    "launch-run": "train",
    "notices": "train",
    "see-notices": "train",
    "compare-runs": "train",
    "run-json": "train",
    "releases": "train",
    "roll-back": "train",
    "ablation": "train",
    "ablation-json": "train",
    "rules": "edit_rules",
    "rule-draft": "edit_rules",
    "add-rule": "edit_rules",
    "edit-rule": "edit_rules",
    "remove-rule": "edit_rules",
    "rule-file": "edit_rules",
    "try-rules": "edit_rules",
    "rule-tryout": "edit_rules",
    "rule-changes": "edit_rules",
    "reveal-rule-change": "edit_rules",
    "publish-rules": "edit_rules",
    "discard-rules": "edit_rules",
    "people": "manage_people",
    "set-person-active": "manage_people",
    "set-person-roles": "manage_people",
    "invitation": ANONYMOUS,
    "api-keys": SIGNED_IN,
    "revoke-api-key": SIGNED_IN,
    # allauth's account pages. Sign-up answers that it is closed.
    "account_login": ANONYMOUS,
    "account_logout": ANONYMOUS,
    "account_inactive": ANONYMOUS,
    "account_signup": ANONYMOUS,
    "account_confirm_login_code": ANONYMOUS,
    "account_reset_password": ANONYMOUS,
    "account_reset_password_done": ANONYMOUS,
    "account_reset_password_from_key": ANONYMOUS,
    "account_reset_password_from_key_done": ANONYMOUS,
    "account_confirm_email": ANONYMOUS,
    "account_email_verification_sent": ANONYMOUS,
    "account_reauthenticate": SIGNED_IN,
    "account_email": SIGNED_IN,
    "account_change_password": SIGNED_IN,
    "account_set_password": SIGNED_IN,
    # The API: a verb for each method. What is not declared here is refused.
    "api:documents": {"GET": "read_documents", "POST": "add_documents"},
    "api:document": {"GET": "read_documents"},
    "api:classify": {"POST": "read_documents"},
    "api:claim-annotations": {"POST": "annotate"},
    "api:annotations": {"POST": "annotate"},
    "api:annotation": {"DELETE": "annotate"},
    "api:export-feedback": {"GET": "exchange_feedback"},
    "api:import-feedback": {"POST": "exchange_feedback"},
    "api:cases": {"GET": "moderate"},
    "api:claim-case": {"POST": "moderate"},
    "api:reveal-case": {"POST": "moderate"},
    "api:decide-case": {"POST": "moderate"},
    "api:hand-back-case": {"POST": "moderate"},
    "api:runs": {"GET": "train", "POST": "train"},
    "api:run": {"GET": "train"},
    "api:cancel-run": {"POST": "train"},
    "api:releases": {"GET": "train"},
    "api:roll-back": {"POST": "train"},
    "api:schema": {"GET": "read_documents"},
    "api:openapi": {"GET": "read_documents"},
}

NAMESPACES: Mapping[str, str] = {"admin": SUPERUSER}
"""Whole namespaces that other packages name."""


def verb_for(route: str, method: str) -> str | None:
    """The declared verb of a route; None for an undeclared one, which nobody may enter."""
    declared = ROUTES.get(route, NAMESPACES.get(route.partition(":")[0]))
    if declared is None or isinstance(declared, str):
        return declared
    return declared.get("GET" if method in ("HEAD", "OPTIONS") else method, next(iter(declared.values())))


def may(person: Person | AnonymousUser, verb: str) -> bool:
    """Whether the person has a role that the verb asks for."""
    if verb == ANONYMOUS:
        return True
    if not isinstance(person, Person) or not person.is_active:
        return False
    if verb == SUPERUSER:
        return person.is_superuser
    return verb == SIGNED_IN or not PERMISSIONS[verb].isdisjoint(person.roles())


def check(person: Person | AnonymousUser, verb: str) -> None:
    """Raises Http404 for a person without any role, PermissionDenied for one with too little."""
    if may(person, verb):
        return
    if isinstance(person, Person) and not person.roles():
        raise Http404
    raise PermissionDenied


View = TypeVar("View", bound=Callable[..., HttpResponseBase])


def allow(verb: str) -> Callable[[View], View]:
    """Guard of an HTML view; domain errors that the view lets through become pages."""

    def guard(view: View) -> View:
        shown = show_errors(view)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if verb != ANONYMOUS and not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            check(request.user, verb)
            return shown(request, *args, **kwargs)

        guarded.verb = verb  # type: ignore[attr-defined] # so that a test can hold it against ROUTES
        return guarded  # type: ignore[return-value]

    return guard


AnyModel = TypeVar("AnyModel", bound=Model)


def _get(rows: QuerySet[AnyModel], pk: int) -> AnyModel:
    found = rows.filter(pk=pk).first()
    if found is None:
        raise Http404
    return found


def document_read(person: Person, pk: int) -> Document:
    check(person, "read_documents")
    return _get(Document.objects.select_related("prediction__release", "batch"), pk)


def batch_read(person: Person, pk: int) -> IntakeBatch:
    check(person, "read_documents")
    return _get(IntakeBatch.objects.all(), pk)


def annotation_write(person: Person, pk: int) -> Annotation:
    """One's own; those of others are not there."""
    check(person, "annotate")
    return _get(Annotation.objects.filter(person=person).select_related("document"), pk)


def case_read(person: Person, pk: int) -> RiskCase:
    """The case without its text, which `moderation.reveal` alone hands out."""
    check(person, "moderate")
    return _get(RiskCase.objects.select_related("document", "claimed_by").defer("document__text"), pk)


def case_write(person: Person, pk: int) -> RiskCase:
    """Who holds it is no question of access: `moderation` compares the claim token."""
    return case_read(person, pk)


def run_read(person: Person, pk: int) -> ml.TrainingRun:
    check(person, "train")
    return _get(ml.list_runs(), pk)


def run_write(person: Person, pk: int) -> ml.TrainingRun:
    return run_read(person, pk)


def snapshot_read(person: Person, pk: int) -> ml.DatasetSnapshot:
    check(person, "train")
    return _get(ml.list_snapshots(), pk)


def release_read(person: Person, pk: int) -> ml.Release:
    check(person, "train")
    return _get(ml.list_releases(), pk)


def release_write(person: Person, pk: int) -> ml.Release:
    return release_read(person, pk)


def draft_read(person: Person, pk: int) -> RuleDraft:
    check(person, "edit_rules")
    return _get(RuleDraft.objects.select_related("author", "base", "run", "submitted_by"), pk)


def draft_write(person: Person, pk: int) -> RuleDraft:
    """Every admin may go on with a draft; a save names the version it saw."""
    return draft_read(person, pk)


def change_read(person: Person, pk: int) -> RuleChange:
    check(person, "edit_rules")
    return _get(RuleChange.objects.select_related("document", "tryout"), pk)


def person_write(person: Person, pk: int) -> Person:
    check(person, "manage_people")
    return _get(Person.objects.all(), pk)


def invitation_write(person: Person, pk: int) -> Invitation:
    check(person, "manage_people")
    return _get(Invitation.objects.all(), pk)


def api_key_write(person: Person, pk: int) -> ApiKey:
    """One's own; those of others are not there."""
    check(person, SIGNED_IN)
    return _get(ApiKey.objects.filter(person=person), pk)
