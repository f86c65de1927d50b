"""Every exception that feedback raises on purpose, and the one table that turns exceptions into an answer.

No message holds a judged text: it names the row, the field and the cure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render

from feedback import ml

Row = dict[str, Any]
"""`{"row", "field", "reason"}`: what is wrong with one row of an intake."""


class FeedbackError(Exception):
    """Base class: catch this to catch all of them."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(self, detail: str, *, rows: Sequence[Row] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.rows = list(rows)


class InvalidInput(FeedbackError):
    """The request makes no sense as it stands; the message says what would."""

    code = "invalid_input"


class Missing(FeedbackError):
    """No such thing, or not for this person."""

    status = 404
    code = "not_found"


class AnswerConflict(FeedbackError):
    """The text has its answers already, from others or from the same person."""

    status = 409
    code = "answer_conflict"


class StaleClaim(FeedbackError):
    """The case is no longer in this person's hands, or it has changed since they saw it. Nothing was written."""

    status = 409
    code = "stale_claim"


class UndoRefused(FeedbackError):
    """This answer can no longer be undone."""

    status = 409
    code = "undo_refused"


class DraftConflict(FeedbackError):
    """The draft is no longer as this person saw it, or no longer open. Nothing was written."""

    status = 409
    code = "draft_conflict"


class InvitationClosed(FeedbackError):
    """The invitation has been used, has run out, or never was."""

    status = 410
    code = "invitation_closed"


@dataclass(frozen=True, slots=True)
class Problem:
    """An exception as the outside sees it."""

    status: int
    code: str
    detail: str
    rows: Sequence[Row] = ()


FOREIGN: tuple[tuple[type[Exception], int, str], ...] = (
    (ml.InferenceUnavailable, 503, "inference_unavailable"),
    (ml.SchemaError, 400, "unknown_label"),
    (ml.ConfigError, 400, "invalid_option"),
    (ml.RuleError, 400, "invalid_rules"),
    (ml.RowError, 400, "invalid_row"),
    (ml.ReleaseConflict, 409, "release_conflict"),
    (ml.TrainingError, 409, "training_refused"),
)
"""Exceptions of the ML side, with the status and code they are shown as."""

SHOWN: tuple[type[Exception], ...] = (FeedbackError, *(kind for kind, _, _ in FOREIGN))


def describe(error: BaseException) -> Problem | None:
    """How to answer for this exception; None for one that is a fault of ours."""
    if isinstance(error, FeedbackError):
        return Problem(error.status, error.code, error.detail, error.rows)
    for kind, status, code in FOREIGN:
        if isinstance(error, kind):
            return Problem(status, code, str(error))
    return None


def show_errors(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Answer domain errors of an HTML view with a page of their status."""

    @wraps(view)
    def shown(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except SHOWN as error:
            problem = describe(error)
            assert problem is not None, "whatever is caught here is in the table"
            return render(request, "feedback/error.html", {"problem": problem}, status=problem.status)

    return shown
