"""Slot words: names, towns, days, relatives and the like, exchanged where the exchange cannot change a label."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

SLOTS_PATH = Path(__file__).with_name("slots.toml")
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_MOST_SWAPS = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """The fields are those of `slots.toml`, where they are explained."""

    name: str
    groups: tuple[tuple[str, ...], ...]
    after: frozenset[str] = frozenset()
    not_after: frozenset[str] = frozenset()
    not_before: frozenset[str] = frozenset()
    needs_before: frozenset[str] = frozenset()
    unless: tuple[str, ...] = ()
    alone: bool = False
    any_case: bool = False

    def is_free(self, text: str, start: int, end: int) -> bool:
        """Whether the words beside `text[start:end]` leave it the part of speech and the sense of the slot."""
        before, after = neighbour(text[:start], -1), neighbour(text[end:], 0)
        return not (
            (self.after and before not in self.after)
            or before in self.not_after
            or after in self.not_before
            or (self.needs_before and after not in self.needs_before)
        )


def read_slots(raw: Mapping[str, Any]) -> tuple[Slot, ...]:
    return tuple(_read_slot(item) for item in raw["slot"])


def _read_slot(item: Mapping[str, Any]) -> Slot:
    def words(key: str) -> frozenset[str]:
        return frozenset(item.get(key, ()))

    return Slot(
        name=item["name"],
        groups=tuple(tuple(group) for group in item["groups"]),
        after=words("after"),
        not_after=words("not_after"),
        not_before=words("not_before"),
        needs_before=words("needs_before"),
        unless=tuple(item.get("unless", ())),
        alone=bool(item.get("alone", False)),
        any_case=bool(item.get("any_case", False)),
    )


@cache
def load_slots() -> tuple[Slot, ...]:
    return read_slots(tomllib.loads(SLOTS_PATH.read_text(encoding="utf-8")))


def neighbour(text: str, place: int) -> str | None:
    """The last (-1) or first (0) word of a piece of text, lower case. None where there is none in the same sentence."""
    piece = re.split(r"[.!?\n]", text)[place]
    words = WORD.findall(piece)
    return words[place].lower().replace("’", "'") if words else None


def whole_word(word: str, *, any_case: bool = False) -> re.Pattern[str]:
    """Matches the word alone, also before 's, never inside another or in a compound with a hyphen."""
    return _whole_word(word, any_case)


@cache
def _whole_word(word: str, any_case: bool) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w'’*-]){re.escape(word)}(?![\w*-])", re.IGNORECASE if any_case else 0)


def swap_slots(text: str, rng: Random, slots: Sequence[Slot] | None = None) -> str | None:
    """The text with one to three slot words exchanged, or None where it has none that is free."""
    lowered = text.lower()
    found = [
        (slot, group, word)
        for slot in (load_slots() if slots is None else slots)
        for group in slot.groups
        for word in group
        if word.lower() in lowered and _is_swappable(text, slot, group, word)
    ]
    rng.shuffle(found)
    swapped, done = text, 0
    for slot, group, word in found:
        # An earlier swap may have changed what stands beside this word.
        if done < _MOST_SWAPS and _is_swappable(swapped, slot, group, word):
            changed = _swap_word(swapped, slot, group, word, rng)
            done += changed != swapped
            swapped = changed
    return swapped if swapped != text else None


def _is_swappable(text: str, slot: Slot, group: Sequence[str], word: str) -> bool:
    matches = list(whole_word(word, any_case=slot.any_case).finditer(text))
    if not matches or not all(slot.is_free(text, *match.span()) for match in matches):
        return False
    words = [found.lower() for found in WORD.findall(text)]
    if any(found.startswith(stop) for found in words for stop in slot.unless if stop != word.lower()):
        return False
    return not (slot.alone and any(other != word and whole_word(other, any_case=True).search(text) for other in group))


def _swap_word(text: str, slot: Slot, group: Sequence[str], word: str, rng: Random) -> str:
    lowered = text.lower()
    free = [other for other in group if other.lower() not in lowered and _same_article(other, word)]
    if not free:
        return text
    chosen = rng.choice(free)
    return whole_word(word, any_case=slot.any_case).sub(lambda match: match_case(match[0], chosen), text)


def _same_article(first: str, second: str) -> bool:
    return (first[0].lower() in "aeiou") == (second[0].lower() in "aeiou")


def match_case(model: str, word: str) -> str:
    if model.islower():
        return word.lower()
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word
