"""What the words around a hit make of it, after ConText: trigger phrases with a direction, a reach and stop words.

Only the sentence of the hit is looked at, so that a text cannot talk its way down from another sentence.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ahocorasick_rs import AhoCorasick, MatchKind

from classifier.errors import RuleError
from classifier.rules.patterns import is_word_boundary

PLAIN = "plain"
IDIOM = "idiom"
QUOTED = "quoted"
PSEUDO = "pseudo"
Direction = Literal["before", "after"]
# A sentence longer than this is looked at in part; it bounds the work for one hit.
WINDOW_CHARACTERS = 300
SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*|\n")
NEXT_WORD = re.compile(r" (\w+)")
OPENING_QUOTE = re.compile(r"(?:^|[\s(\[:,])(['\"])(?=\S|$)")


@dataclass(frozen=True, slots=True)
class Trigger:
    """A phrase that changes the scope of a hit near it. A pseudo trigger hides the triggers inside it instead."""

    phrase: str
    category: str
    direction: Direction
    max_words: int
    stops: re.Pattern[str] | None
    in_quotes: bool
    """Counts only when the hit stands in quotation marks."""
    example: str
    """A text in which it must work: for a pseudo trigger, one whose floor must stand."""


@dataclass(frozen=True, slots=True)
class Scopes:
    triggers: tuple[Trigger, ...]
    clearing: frozenset[str]
    """Categories under which a block rule sets no floor."""


class ScopeLayer:
    def __init__(self, scopes: Scopes, normalise: Callable[[str], str]) -> None:
        self._clearing = scopes.clearing
        self._tables = {
            direction: TriggerTable([item for item in scopes.triggers if item.direction == direction], normalise)
            for direction in ("before", "after")
        }

    def clears(self, scope: str, ignored: tuple[str, ...] = ()) -> bool:
        return scope in self._clearing and scope not in ignored

    def judge(self, text: str, start: int, end: int) -> str:
        """The scope of a hit in a normalised text. One that clears wins over one that does not, then the nearest."""
        before, after = cut_sentence(text, start, end)
        is_quoted = stands_in_quotes(before, after)
        found = [
            (item.category not in self._clearing, distance, item.category)
            for direction, context in (("before", before), ("after", after))
            for item, distance in self._tables[direction].find(context)
            if is_quoted or not item.in_quotes
        ]
        if is_quoted and has_words_before_quote(before):
            found.append((False, WINDOW_CHARACTERS, QUOTED))
        return min(found, default=(True, 0, PLAIN))[2]


class TriggerTable:
    """The triggers of one direction in one automaton, longest first."""

    def __init__(self, triggers: list[Trigger], normalise: Callable[[str], str]) -> None:
        self._triggers = triggers
        self._automaton = AhoCorasick([normalise(item.phrase).strip() for item in triggers], MatchKind.LeftmostLongest)

    def find(self, context: str) -> Iterator[tuple[Trigger, int]]:
        """Triggers that reach the hit, with the number of words between."""
        for index, start, end in self._automaton.find_matches_as_indexes(context):
            trigger = self._triggers[index]
            if trigger.category == PSEUDO or not (is_word_boundary(context, start) and is_word_boundary(context, end)):
                continue
            between = context[end:] if trigger.direction == "before" else context[:start]
            distance = len(between.split())
            if distance <= trigger.max_words and not (trigger.stops and trigger.stops.search(between)):
                yield trigger, distance


def find_next_word(text: str, end: int) -> str:
    """The word that follows a hit with only a space between; empty where a mark or a line break stands there."""
    match = NEXT_WORD.match(text, end)
    return match[1] if match else ""


def cut_sentence(text: str, start: int, end: int) -> tuple[str, str]:
    """What stands before and after the hit in its sentence."""
    before = text[max(0, start - WINDOW_CHARACTERS) : start]
    after = text[end : end + WINDOW_CHARACTERS]
    ends = list(SENTENCE_END.finditer(before))
    first_end = SENTENCE_END.search(after)
    return before[ends[-1].end() :] if ends else before, after[: first_end.end()] if first_end else after


def stands_in_quotes(before: str, after: str) -> bool:
    opening = list(OPENING_QUOTE.finditer(before))
    if not opening:
        return False
    mark = opening[-1][1]
    is_open = before.count('"') % 2 == 1 if mark == '"' else not re.search(r"'(?!\w)", before[opening[-1].end() :])
    closing = after.find('"') if mark == '"' else find_closing_apostrophe(after)
    return is_open and closing >= 0


def find_closing_apostrophe(after: str) -> int:
    match = re.search(r"'(?!\w)", after)
    return match.start() if match else -1


def has_words_before_quote(before: str) -> bool:
    """A sentence that is all quotation may be the speaker's own; one with an introduction is somebody's words."""
    opening = list(OPENING_QUOTE.finditer(before))
    return any(character.isalnum() for character in before[: opening[-1].start()])


def parse_scopes(tables: Mapping[str, Mapping[str, Any]]) -> Scopes:
    """All `[scope.<category>]` tables. Raises RuleError naming file, scope and cure."""
    triggers: list[Trigger] = []
    clearing: set[str] = set()
    for file, content in tables.items():
        for category, raw in content.get("scope", {}).items():
            if raw.get("clears", False):
                clearing.add(category)
            for direction in ("before", "after"):
                for group in raw.get(direction, ()):
                    triggers += parse_group(f"{file}: scope {category}.{direction}", category, direction, group)
    return Scopes(tuple(triggers), frozenset(clearing))


def parse_group(where: str, category: str, direction: Direction, raw: Mapping[str, Any]) -> Iterator[Trigger]:
    phrases = raw.get("triggers")
    if not isinstance(phrases, Mapping) or not phrases:
        raise RuleError(f"{where}: no triggers. Add a table of phrase = example.")
    stops = [re.escape(stop) if not stop.isalpha() else rf"\b{stop}\b" for stop in raw.get("stops", ())]
    for phrase, example in phrases.items():
        if not phrase.strip() or not isinstance(example, str) or not example:
            raise RuleError(f"{where}: trigger {phrase!r} needs a phrase and an example text in which it works.")
        yield Trigger(
            phrase=phrase,
            category=category,
            direction=direction,
            max_words=raw.get("max_words", 0),
            stops=re.compile("|".join(stops)) if stops else None,
            in_quotes=raw.get("in_quotes", False),
            example=example,
        )
