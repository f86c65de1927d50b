"""What the HTML views share: the typed request, and the page cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails

from feedback.errors import InvalidInput
from feedback.models import Person


class HeedRequest(HttpRequest):
    """Of a signed-in person; `access.allow` lets nobody else reach a view that asks for it."""

    htmx: HtmxDetails
    user: Person


Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    rows: Sequence[Row]
    before: int | None
    """Cursor of the next page; None on the last one."""


def cut_page(rows: QuerySet[Row], before: str | None, *, size: int = 50) -> Page[Row]:
    """The newest rows older than the cursor: the millionth row costs as much as the first."""
    if before:
        if not before.isdecimal():
            raise InvalidInput("before must be the number at the end of the page before")
        rows = rows.filter(pk__lt=int(before))
    found = list(rows.order_by("-pk")[: size + 1])
    return Page(found[:size], found[size - 1].pk if len(found) > size else None)
