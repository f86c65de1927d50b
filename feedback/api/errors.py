"""Every error of the API has one shape: `{"error": code, "detail": sentence, "rows": […]?}`."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from feedback.errors import Problem, describe


def handle_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """The answer, or None for a fault of ours, which then is a 500."""
    problem = describe(error) or describe_rest(error)
    if problem is None:
        return None
    set_rollback()
    return answer(problem)


def answer(problem: Problem, **more: Any) -> Response:
    """The response; `more` are further fields of its body."""
    body: dict[str, Any] = {"error": problem.code, "detail": problem.detail}
    if problem.rows:
        body["rows"] = list(problem.rows)
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == status.HTTP_401_UNAUTHORIZED else None
    return Response(body | more, status=problem.status, headers=headers)


def describe_rest(error: Exception) -> Problem | None:
    """Django's and the REST framework's own exceptions."""
    if isinstance(error, Http404):
        return Problem(404, "not_found", "there is no such thing here, or not for you")
    if isinstance(error, PermissionDenied):
        return Problem(403, "forbidden", "your role does not allow this")
    if isinstance(error, exceptions.ValidationError):
        return Problem(400, "invalid_input", "some fields do not fit", list(list_fields(error.detail)))
    if isinstance(error, exceptions.APIException):
        return Problem(error.status_code, str(error.get_codes()), str(error.detail))
    return None


def list_fields(detail: Any, path: str = "") -> Any:
    """`{"field", "reason"}` for every leaf of the framework's nested error details."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from list_fields(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(detail, list):
        for inner in detail:
            yield from list_fields(inner, path)
    else:
        yield {"field": path, "reason": str(detail)}
