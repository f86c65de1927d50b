"""The one registry of keys. The printed key, the binding and the `?` overlay all come from here.

A page names its scopes; within a page no key may mean two things (a test looks). Digits belong to the active row alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feedback.models.labels import SCHEMA

PRINTED: Mapping[str, str] = {" ": "space", "Enter": "↵", "Backspace": "⌫", "Escape": "esc"}
SPOKEN: Mapping[str, str] = {" ": "Space"}
"""Names in `aria-keyshortcuts` that differ from `KeyboardEvent.key`."""


@dataclass(frozen=True, slots=True)
class Key:
    action: str
    """Named by templates: `{% key "agree" %}`."""
    key: str
    """As `KeyboardEvent.key` names it."""
    label: str
    is_listed: bool = True
    """False for one that another line of the overlay stands for."""
    range_end: str = ""
    """The last key of a row of keys that share this line."""

    @property
    def printed(self) -> str:
        first = PRINTED.get(self.key, self.key)
        return f"{first} … {self.range_end}" if self.range_end else first

    @property
    def spoken(self) -> str:
        return SPOKEN.get(self.key, self.key)


@dataclass(frozen=True, slots=True)
class Scope:
    name: str
    title: str
    keys: tuple[Key, ...]


def _dimension_keys() -> tuple[Key, ...]:
    return tuple(Key(f"row-{item.name}", item.key, f"correct the {item.name}") for item in SCHEMA.dimensions)


def _digit_keys() -> tuple[Key, ...]:
    digits = sorted({value.key for item in SCHEMA.dimensions for value in item.values})
    first, *others = digits
    listed = Key(f"choose-{first}", first, "choose in the active row", range_end=digits[-1])
    return (listed, *(Key(f"choose-{digit}", digit, listed.label, is_listed=False) for digit in others))


EVERYWHERE = Scope(
    "everywhere",
    "Everywhere",
    (
        Key("help", "?", "show these keys"),
        Key("leave", "Escape", "leave a field, a drawer or the correction"),
    ),
)
ANNOTATE = Scope(
    "annotate",
    "Annotate",
    (
        Key("agree", "a", "agree with all four labels"),
        Key("correct", "x", "correct the labels"),
        *_dimension_keys(),
        *_digit_keys(),
        Key("next-row", "Tab", "next row, with shift the one before"),
        Key("send", "Enter", "send the correction"),
        Key("incorrect", "i", "incorrect, and I cannot say what is right"),
        Key("unsure", "u", "unsure: leave it to others"),
        Key("skip", " ", "skip: not for me"),
        Key("flag", "f", "flag it to the moderators"),
        Key("note", "n", "write a note"),
        Key("guidelines", "g", "open the guidelines"),
        Key("undo", "Backspace", "undo the newest answer"),
    ),
)
QUEUE = Scope("queue", "Cases", (Key("next-case", "Enter", "take the next case"),))
CASE = Scope(
    "case",
    "This case",
    (
        Key("show", "s", "show the text"),
        Key("confirm", "c", "at risk: confirm and escalate"),
        Key("not-at-risk-none", SCHEMA["risk"].values[0].key, "not at risk: risk none"),
        Key("not-at-risk-low", SCHEMA["risk"].values[1].key, "not at risk: risk low"),
        Key("supervisor", "v", "needs a supervisor"),
        Key("hand-back", "b", "hand it back, no reason asked"),
        Key("note", "n", "write a note"),
        Key("guidelines", "g", "open the guidelines"),
    ),
)
TABLE = Scope(
    "table",
    "Lists",
    (
        Key("search", "/", "search"),
        Key("row-down", "j", "next row"),
        Key("row-up", "k", "row before"),
    ),
)

PAGES: Mapping[str, tuple[Scope, ...]] = {
    "annotate": (ANNOTATE, EVERYWHERE),
    "cases": (QUEUE, EVERYWHERE),
    "case": (CASE, EVERYWHERE),
    "documents": (TABLE, EVERYWHERE),
}
"""The scopes of each page, by url name; all others have EVERYWHERE alone."""

PAGE_OF: Mapping[str, str] = {
    "submit-annotation": "annotate",
    "undo-annotation": "annotate",
    "flag-document": "annotate",
    "claim-case": "cases",
    "reveal-case": "case",
    "decide-case": "case",
}
"""Routes that answer with a part of a page, or with the whole of it after a form was refused."""


def scopes_of(page: str) -> tuple[Scope, ...]:
    return PAGES.get(page, (EVERYWHERE,))


def find_key(page: str, action: str) -> Key:
    """Raises KeyError for an action that the page does not have: a printed key without a binding is a fault."""
    for scope in scopes_of(page):
        for key in scope.keys:
            if key.action == action:
                return key
    raise KeyError(f"page {page!r} has no key for {action!r}")


def find_conflicts(scopes: Iterable[Scope]) -> list[str]:
    """Keys that mean two things in these scopes together."""
    counts = Counter(key.key for scope in scopes for key in scope.keys)
    return sorted(key for key, count in counts.items() if count > 1)
