"""Other spellings of the same text. Each operation returns None where it does not apply, so nothing is forced."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from training.corpus.grammar.slots import match_case, whole_word

SURFACE_PATH = Path(__file__).with_name("surface.toml")
LONG_WORDS = 25
LEET_WORDS = 12
"""Longer texts are not obfuscated: people hide a word in a short line."""
TWO_TYPOS_WORDS = 12
_SHOUTED_WORDS = 30
_TYPED = re.compile(r"(?<![\w'’*-])[A-Za-z]{5,}(?![\w'’*-])")
_SUBJECTS = r"(?! (?:I|you|he|she|it|we|they|i)\b)"


@dataclass(frozen=True, slots=True)
class Material:
    """A text, what is known of it, and the lower-case words of the bank (a typo must not make one of them)."""

    text: str
    labels: Mapping[str, str]
    vocabulary: frozenset[str]

    @property
    def words(self) -> int:
        return len(self.text.split())


Operation = Callable[[Material, Random], str | None]


@cache
def load_surface() -> dict[str, Any]:
    return tomllib.loads(SURFACE_PATH.read_text(encoding="utf-8"))


@cache
def negations() -> frozenset[str]:
    return frozenset(load_surface()["negations"])


def is_negation(word: str) -> bool:
    bare = word.lower().replace("’", "'")
    return bare in negations() or bare.endswith("n't")


def toggle_contractions(item: Material, rng: Random) -> str | None:
    """All contractions written out, or all that can be drawn together."""
    expanded, contracted = _expand(item.text), _contract(item.text)
    options = [text for text in (expanded, contracted) if text != item.text]
    return rng.choice(options) if options else None


def _expand(text: str) -> str:
    text = text.replace("’", "'")
    for short, full in load_surface()["expand"].items():
        # "Don't you" turned to "do not you" is no English.
        guard = _SUBJECTS if short.endswith("n't") else r"(?=\s)"
        pattern = _ignoring_case(rf"(?<![\w']){re.escape(short)}(?![\w']){guard}")
        text = _put(pattern, full, text, _match_first)
    return text


def _contract(text: str) -> str:
    for full, short in load_surface()["contract"].items():
        pattern = _ignoring_case(rf"(?<![\w']){re.escape(full)}(?= [A-Za-z])")
        text = _put(pattern, short, text, _match_first)
    return text


def _put(pattern: re.Pattern[str], word: str, text: str, fit: Callable[[str, str], str]) -> str:
    """The text with `word`, made to fit what it replaces, at every match."""
    return pattern.sub(lambda match: fit(match[0], word), text)


@cache
def _ignoring_case(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _match_first(model: str, word: str) -> str:
    if sum(char.isalpha() for char in model) > 2 and model.isupper():
        return word.upper()
    if word.startswith("I"):
        return model[0] + word[1:]
    return word[0].upper() + word[1:] if model[0].isupper() else word


def write_slang(item: Material, rng: Random) -> str | None:
    """Most of the words that have a short form in it, in that form."""
    text = item.text.replace("’", "'")
    for full, forms in sorted(load_surface()["slang"].items(), key=lambda pair: -len(pair[0])):
        if rng.random() < 0.8:
            text = _put(whole_word(full, any_case=True), rng.choice(forms), text, match_case)
    return text if text != item.text else None


def change_case(item: Material, rng: Random) -> str | None:
    text = item.text
    options = [text.lower(), text[0].upper() + _write_sentences(text[1:])]
    if item.words <= _SHOUTED_WORDS:
        options.append(text.upper())
    options = [option for option in options if option != text]
    return rng.choice(options) if options else None


def _write_sentences(text: str) -> str:
    text = re.sub(r"(?<![\w'])i(?=[\s']|$)", "I", text)
    return re.sub(r"([a-z]{2}[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def change_ending(item: Material, rng: Random) -> str | None:
    """Trailing dots (not on joy: they would cast doubt), no mark, or two exclamation marks (on strong feeling only)."""
    if not item.text.rstrip(".!")[-1:].isalnum():
        return None
    bare = item.text.rstrip(".!")
    options = [bare]
    if item.labels["emotion"] != "positive":
        options.append(f"{bare}...")
    if item.labels["emotion"] == "positive" or item.labels["stress"] == "high":
        options.append(f"{bare}!!")
    options = [option for option in options if option != item.text]
    return rng.choice(options) if options else None


def make_typos(item: Material, rng: Random) -> str | None:
    """One slip of the hand, two in a text of twelve words or more; never in a negation, never making another word."""
    found = [match for match in _TYPED.finditer(item.text) if not is_negation(match[0])]
    wanted = 1 if item.words < TWO_TYPOS_WORDS else rng.choice((1, 2))
    text = item.text
    for match in sorted(rng.sample(found, min(wanted, len(found))), key=lambda match: -match.start()):
        word = rng.choice((_press_neighbour, _drop_letter, _double_letter, _transpose))(match[0], rng)
        if word.lower() not in item.vocabulary:
            text = text[: match.start()] + word + text[match.end() :]
    return text if text != item.text else None


def _press_neighbour(word: str, rng: Random) -> str:
    place = rng.randrange(1, len(word))
    letter = rng.choice(load_surface()["neighbours"][word[place].lower()])
    return word[:place] + match_case(word[place], letter) + word[place + 1 :]


def _drop_letter(word: str, rng: Random) -> str:
    place = rng.randrange(1, len(word))
    return word[:place] + word[place + 1 :]


def _double_letter(word: str, rng: Random) -> str:
    place = rng.randrange(1, len(word))
    return word[:place] + word[place] + word[place:]


def _transpose(word: str, rng: Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def add_emoji(item: Material, rng: Random) -> str | None:
    """At the end, fitting the emotion and the sentiment; not where a sign stands already."""
    fitting = load_surface()["emoji"].get(item.labels["emotion"])
    if fitting is None or fitting["sentiment"] != item.labels["sentiment"] or any(ord(c) > 0x2190 for c in item.text):
        return None
    sign = rng.choice(fitting["signs"])
    return f"{item.text} {sign * rng.choice((1, 1, 1, 2))}"


def add_prefix(item: Material, rng: Random) -> str | None:
    first = item.text.split()[0]
    if not first[0].isalpha():
        return None
    lead: str = rng.choice(load_surface()["long_prefixes" if item.words >= LONG_WORDS else "prefixes"])
    if lead.lower().startswith(first.lower().rstrip(",")):
        return None
    # A name keeps its capital: only a word that the bank also writes small is lowered.
    is_common = first.lower() in item.vocabulary and not first.startswith("I'") and first != "I" and not first.isupper()
    keeps = lead.endswith(". ") or not is_common
    text = item.text if keeps else item.text[0].lower() + item.text[1:]
    return lead + text


def obfuscate(item: Material, rng: Random) -> str | None:
    """One to three words of a short text in figures, stars, spaced letters or look-alike letters; never a negation.

    Harmless texts are hidden as often as others, else the disguise itself would come to mean danger.
    """
    if item.words > LEET_WORDS:
        return None
    plain = set(load_surface()["plain"])
    words = [
        match
        for match in re.finditer(r"(?<![\w'’*-])[A-Za-z]{3,}(?![\w'’*-])", item.text)
        if not is_negation(match[0]) and match[0].lower() not in plain
    ]
    if not words:
        return None
    hide = rng.choice((_hide_by_figures, _hide_by_figures, _hide_by_star, _hide_by_spaces, _hide_by_twins))
    text = item.text
    chosen = rng.sample(words, min(len(words), rng.randint(1, 3)))
    for match in sorted(chosen, key=lambda found: -found.start()):
        text = text[: match.start()] + hide(match[0], rng) + text[match.end() :]
    return text if text != item.text else None


def _hide_by_figures(word: str, rng: Random) -> str:
    signs = load_surface()["leet"]
    return word[0] + "".join(rng.choice(signs[char]) if char in signs else char for char in word[1:])


def _hide_by_star(word: str, rng: Random) -> str:
    vowels = [place for place, char in enumerate(word) if place and char in "aeiou"]
    place = rng.choice(vowels) if vowels else len(word) // 2
    return f"{word[:place]}*{word[place + 1 :]}"


def _hide_by_spaces(word: str, rng: Random) -> str:
    return rng.choice((" ", ".", "-")).join(word)


def _hide_by_twins(word: str, rng: Random) -> str:
    twins = load_surface()["homoglyph"]
    return "".join(twins.get(char, char) for char in word)
