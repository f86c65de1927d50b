"""Undo disguises of spelling, and keep the way back: every span of the normalised text slices the original one.

Each pass replaces a few stretches of text and remembers only those, so a span is mapped back by one bisection a pass.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

Edit = tuple[int, int, str]
"""Start, end and replacement; edits of one pass stand in order and do not overlap. `start < end`, always."""

UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e]")
BLANKS = re.compile(r"[ \t]*[\n\r][ \t\n\r]*|[ \t]{2,}|\t")
# One separator, or two or three spaces where a new word begins. ". " is none: it ends a sentence.
SPACED = re.compile(r"(?<![a-z0-9])[a-z0-9@$](?:(?:[ ._*-]| {2,3})[a-z0-9@$!](?![a-z0-9])){2,}")
# The last full stop of `k.m.s. tonight`, seen from the one before it: it belongs to the spelling.
CLOSING_DOT = re.compile(r"\.[a-z0-9@$!]\.(?= [a-z0-9])")
# Possessive (`++`) and guarded at the front, or a long run of one letter would be tried from each of its places.
JOINED = re.compile(r"(?<![a-z0-9])[a-z0-9]++(?:[-_./\\][a-z0-9]++)++")
TOKEN = re.compile(r"[a-z0-9@$]++(?:[!|*']++[a-z0-9@$]++)*+")
LONG_RUN = re.compile(r"(.)\1{2,}")
REPEAT = re.compile(r"(.)\1+")
LINE_BREAKS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
SHORTEST_WORD = 3
# Digits and signs that stand for letters. `1` and `!` serve as i and as l, so both letters share one class.
LEET_CLASS = str.maketrans(
    {"1": "i", "!": "i", "|": "i", "l": "i", "0": "o", "3": "e", "4": "a", "@": "a", "5": "s", "$": "s", "7": "t"}
)


@dataclass(frozen=True, slots=True)
class Spelling:
    """The spelling tables of a rules folder, as written in its data files."""

    words: frozenset[str] = frozenset()
    """Words worth restoring from leet, masks, spaced and repeated letters."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Slang, contractions and misspellings -> the words they stand for."""
    symbols: Mapping[str, str] = field(default_factory=dict)
    """One character (look-alike letter, emoji) -> what it reads as."""


class Pass:
    """One rewriting of a text."""

    __slots__ = ("_from", "_old", "_to", "text")

    def __init__(self, text: str, edits: Iterable[Edit]) -> None:
        pieces: list[str] = []
        self._from: list[int] = []
        self._to: list[int] = []
        self._old: list[tuple[int, int]] = []
        position = shift = 0
        for start, end, replacement in edits:
            pieces += (text[position:start], replacement)
            self._from.append(start + shift)
            self._to.append(start + shift + len(replacement))
            self._old.append((start, end))
            shift += len(replacement) - (end - start)
            position = end
        pieces.append(text[position:])
        self.text = "".join(pieces)

    def back(self, start: int, end: int) -> tuple[int, int]:
        """The span before this pass. A span that cuts into a replacement takes in all that was replaced."""
        return self._locate(start)[0], self._locate(end - 1)[1]

    def _locate(self, position: int) -> tuple[int, int]:
        index = bisect_right(self._from, position) - 1
        if index < 0:
            return position, position + 1
        if position < self._to[index]:
            return self._old[index]
        before = position - self._to[index] + self._old[index][1]
        return before, before + 1


@dataclass(frozen=True, slots=True)
class Normalised:
    text: str
    passes: tuple[Pass, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Map a non-empty span of `text` to one that slices the original."""
        for item in reversed(self.passes):
            start, end = item.back(start, end)
        return start, end


class Normaliser:
    """Lower case, plain letters, full words. Time grows with the length of the text, whatever the text."""

    def __init__(self, spelling: Spelling) -> None:
        self._symbols = dict(spelling.symbols)
        self._aliases = dict(spelling.aliases)
        self._words = spelling.words | {
            word for word in spelling.aliases if word.isalpha() and len(word) >= SHORTEST_WORD
        }
        self._folded: dict[str, str] = {}

    def normalise(self, text: str) -> Normalised:
        passes: list[Pass] = []
        text = text.translate(ASCII_LOWER)
        finders = (
            self._fold_characters,
            self._close_spaced_letters,
            squeeze_blanks,
            self._split_joined,
            self._restore_words,
        )
        for find in finders:
            edits = list(find(text))
            if edits:
                passes.append(Pass(text, edits))
                text = passes[-1].text
        return Normalised(text, tuple(passes))

    def __call__(self, text: str) -> str:
        return self.normalise(text).text

    def _fold_characters(self, text: str) -> Iterator[Edit]:
        """NFKC and case folding, accents and invisible characters dropped, look-alikes and emoji read."""
        for match in UNPRINTABLE.finditer(text):
            character = match[0]
            folded = self._folded.get(character)
            if folded is None:
                # At most one entry for each character of Unicode; only those seen.
                folded = self._folded[character] = self._fold(character)
            if folded != character:
                yield match.start(), match.end(), folded

    def _fold(self, character: str) -> str:
        if character in self._symbols:
            return self._symbols[character]
        if character.isspace():
            return "\n" if character in LINE_BREAKS else " "
        # One character at a time: a heap of combining marks costs quadratic time when composed as a whole.
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", character).casefold())
        return "".join(self._symbols.get(part, part) for part in folded if not is_invisible(part))

    def _close_spaced_letters(self, text: str) -> Iterator[Edit]:
        """`k i l l` -> `kill`, also where no gap shows the end of the word; only for known words."""
        for match in SPACED.finditer(text):
            places = [place for place in range(match.start(), match.end()) if text[place] not in " ._*-"]
            shapes = "".join(text[place] for place in places).translate(LEET_CLASS)
            index = 0
            while index < len(shapes):
                word = self._longest_word(shapes, index)
                if word:
                    end = places[index + len(word) - 1] + 1
                    yield places[index], end + bool(CLOSING_DOT.match(text, end - 2)), word
                index += len(word) or 1

    def _longest_word(self, shapes: str, index: int) -> str:
        for length in range(min(self._longest, len(shapes) - index), SHORTEST_WORD - 1, -1):
            word = self._by_shape.get(shapes[index : index + length])
            if word:
                return word
        return ""

    def _split_joined(self, text: str) -> Iterator[Edit]:
        """`sui-cide` -> `suicide`, `self-harm` -> `self harm`; a full stop or slash between two words stays."""
        for match in JOINED.finditer(text):
            bare = re.sub(r"[-_./\\]", "", match[0])
            if bare in self._words:
                yield match.start(), match.end(), bare
                continue
            for place in range(match.start(), match.end()):
                if text[place] in "-_":
                    yield place, place + 1, " "

    def _restore_words(self, text: str) -> Iterator[Edit]:
        for match in TOKEN.finditer(text):
            token = match[0]
            word = self._aliases.get(token)
            if word is None:
                if token.isalpha() and not LONG_RUN.search(token):
                    continue
                word = self._restore(token)
                word = self._aliases.get(word, word)
            if word != token:
                yield match.start(), match.end(), word

    def _restore(self, token: str) -> str:
        if "*" in token:
            return self._unmask(token)
        if token.isdigit():
            return token
        shape = token.translate(LEET_CLASS)
        if not token.isalpha() and shape in self._by_shape:
            return self._by_shape[shape]
        if LONG_RUN.search(token):
            known = self._by_squeezed_shape.get(REPEAT.sub(r"\1", shape))
            return known or LONG_RUN.sub(r"\1", token)
        return expand_contraction(token)

    def _unmask(self, token: str) -> str:
        """`s*icide` -> `suicide` where exactly one known word fits and most letters are shown."""
        if token.count("*") * 2 > len(token):
            return token
        fits = [
            word
            for word in self._by_length.get(len(token), ())
            if all(shown in ("*", letter) for shown, letter in zip(token, word, strict=True))
        ]
        return fits[0] if len(fits) == 1 else token

    @cached_property
    def _by_shape(self) -> dict[str, str]:
        return {word.translate(LEET_CLASS): word for word in sorted(self._words)}

    @cached_property
    def _by_squeezed_shape(self) -> dict[str, str]:
        # The shortest word wins: `tooo` is rather "to" than "too".
        words = sorted(self._words, key=lambda word: (-len(word), word))
        return {REPEAT.sub(r"\1", word.translate(LEET_CLASS)): word for word in words}

    @cached_property
    def _by_length(self) -> dict[int, list[str]]:
        lengths: dict[int, list[str]] = {}
        for word in sorted(self._words):
            lengths.setdefault(len(word), []).append(word)
        return lengths

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._words), default=0)


ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
"""`str.lower` may change the length of a text; this never does."""

ENDINGS: tuple[tuple[str, str], ...] = (
    ("n't", " not"),
    ("'m", " am"),
    ("'re", " are"),
    ("'ve", " have"),
    ("'ll", " will"),
    ("'d", " would"),
)


def expand_contraction(token: str) -> str:
    """`i'm` -> `i am`, so that a rule needs one form only. `'s` stays: it may be a genitive."""
    for ending, words in ENDINGS:
        if token.endswith(ending):
            return token[: -len(ending)] + words
    return token


def squeeze_blanks(text: str) -> Iterator[Edit]:
    """Runs of blanks to one space, or to one line break where they hold one: a line break ends a sentence."""
    for match in BLANKS.finditer(text):
        blank = "\n" if "\n" in match[0] or "\r" in match[0] else " "
        if blank != match[0]:
            yield match.start(), match.end(), blank


def is_invisible(character: str) -> bool:
    """Zero-width, control, variation and combining characters, and lone surrogates."""
    return (
        unicodedata.category(character) in ("Cf", "Cc", "Cs", "Me")
        or unicodedata.combining(character) != 0
        or "\ufe00" <= character <= "\ufe0f"
        or character in "\u115f\u1160\u17b4\u17b5"
    )
