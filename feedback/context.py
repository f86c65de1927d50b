"""What every page's shell shows: the pages of the person's role, what serves, own progress."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from feedback import keys, ml
from feedback.access import SIGNED_IN, may
from feedback.models import Annotation, CaseDecision, Notice, Person


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of the rail. `routes` are the url names of the pages that belong to it."""

    route: str
    label: str
    icon: str
    verb: str
    routes: tuple[str, ...] = ()

    def holds(self, route: str) -> bool:
        return route == self.route or route in self.routes


PLACES = (
    Place("annotate", "Annotate", "annotate", "annotate"),
    Place("cases", "Cases", "cases", "moderate", ("case",)),
    Place("documents", "Documents", "documents", "read_documents", ("document",)),
    Place("my-annotations", "My answers", "history", "annotate"),
    Place("intake", "Add texts", "intake", "add_documents", ("batch",)),
    Place("feedback", "Feedback", "feedback", "exchange_feedback"),
    Place(
        "training",
        "Training",
        "training",
        "train",
        ("run", "launch-run", "compare-runs", "preview-snapshot", "snapshot"),
    ),
    Place("releases", "Releases", "releases", "train", ("roll-back", "ablation")),
    Place(
        "rules", "Rules", "rules", "edit_rules", ("rule-draft", "add-rule", "edit-rule", "rule-file", "rule-changes")
    ),
    Place("people", "People", "people", "manage_people"),
)
MORE = (
    Place("notices", "News", "note", "train"),
    Place("guidelines", "Guidelines", "guidelines", "read_documents"),
    Place("api-keys", "API keys", "key", SIGNED_IN),
    Place("about", "About Heed", "about", SIGNED_IN),
)
BAR_PLACES = 4
"""As many places fit into the bottom bar of a phone, beside "More"."""


class Shell:
    """Lazy, so that a fragment, which shows no shell, costs no query for it."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        match = request.resolver_match
        self.route = match.view_name if match else ""

    @cached_property
    def person(self) -> Person | None:
        user = getattr(self.request, "user", None)
        return user if isinstance(user, Person) else None

    @cached_property
    def places(self) -> list[Place]:
        person = self.person
        return [place for place in PLACES if person and may(person, place.verb)]

    @property
    def bar(self) -> list[Place]:
        return self.places[:BAR_PLACES]

    @property
    def rest(self) -> list[Place]:
        person = self.person
        return self.places[BAR_PLACES:] + [place for place in MORE if person and may(person, place.verb)]

    @property
    def here(self) -> Place | None:
        return next((place for place in (*PLACES, *MORE) if place.holds(self.route)), None)

    @cached_property
    def serving(self) -> ml.Release | None:
        return ml.serving_release()

    @cached_property
    def done_today(self) -> int | None:
        """Own answers or decisions since midnight; None for someone who gives neither."""
        return count_done_today(self.person) if self.person else None

    @cached_property
    def news(self) -> int:
        """Notices that the person has not seen. Only who may launch runs is told anything."""
        if self.person is None or not may(self.person, "train"):
            return 0
        return Notice.objects.filter(person=self.person, seen_at=None).count()

    @property
    def page(self) -> str:
        return keys.PAGE_OF.get(self.route, self.route)

    @property
    def scopes(self) -> tuple[keys.Scope, ...]:
        return keys.scopes_of(self.page)

    @property
    def theme(self) -> str:
        """`light`, `dark`, or empty: as the system says."""
        theme = self.request.COOKIES.get("theme", "")
        return theme if theme in ("light", "dark") else ""

    @property
    def is_narrow(self) -> bool:
        return self.request.COOKIES.get("rail") == "narrow"


def count_done_today(person: Person) -> int | None:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    if may(person, "annotate"):
        return Annotation.objects.filter(person=person, undone_at=None, created_at__gte=midnight).count()
    if may(person, "moderate"):
        return CaseDecision.objects.filter(person=person, created_at__gte=midnight).count()
    return None


def shell(request: HttpRequest) -> dict[str, Any]:
    return {"shell": Shell(request)}
