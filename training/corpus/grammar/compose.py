"""Posts made of several bank rows: a risk sentence between two plain ones, and harmless rows in the very same shape."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from classifier.schema import load_schema
from training.corpus.bank import BankRow
from training.corpus.grammar.slots import WORD, swap_slots

COMPOSE_PATH = Path(__file__).with_name("compose.toml")
_QUOTED = re.compile(r"""["“”«»]|(?<![\w])['‘]|['’](?!\w)|\bsaid\b|\bsays\b|:""")
_FIRST_PERSON = re.compile(r"\b(?:I|i)\b|\b[Ii]['’]?(?:m|ve|d|ll)\b")
_ENDS = re.compile(r"[.!?…]$|[^\w\s]$")


@cache
def load_compose() -> dict[str, Any]:
    return tomllib.loads(COMPOSE_PATH.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Pools:
    """What may stand around a middle, and what may share a post with a middle of the same emotion and sentiment."""

    padding: tuple[BankRow, ...]
    companions: Mapping[tuple[str, str], tuple[BankRow, ...]]

    @classmethod
    def of(cls, items: Sequence[BankRow]) -> "Pools":
        companions: dict[tuple[str, str], list[BankRow]] = {}
        for item in items:
            if is_joinable(item):
                companions.setdefault(_feeling(item), []).append(item)
        kept = {feeling: tuple(rows) for feeling, rows in companions.items()}
        return cls(tuple(item for item in items if is_padding(item)), kept)


def _feeling(item: BankRow) -> tuple[str, str]:
    return str(item.row.labels["emotion"]), str(item.row.labels["sentiment"])


def is_padding(item: BankRow) -> bool:
    rules, words = load_compose(), [word.lower() for word in WORD.findall(item.row.text)]
    plain = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
    return (
        item.functionality in rules["padding"]
        and item.pair is None
        and dict(item.row.labels) == plain
        and _stands_alone(item)
        and not item.row.text.endswith("?")
        and not item.row.text.isupper()
        and not any(word.startswith(stop) for word in words for stop in rules["padding_unless"])
    )


def is_spliceable(item: BankRow) -> bool:
    """First person, explicit by itself, with no other speaker in it."""
    rules, emotion = load_compose()["splice"], str(item.row.labels["emotion"])
    is_explicit = item.functionality in rules["explicit_throughout"] and emotion == "self_harm_high"
    return (
        item.row.labels["risk"] in rules["risk"]
        and emotion.startswith("self_harm")
        and item.functionality not in rules["not_from"]
        and _stands_alone(item)
        and _FIRST_PERSON.search(item.row.text) is not None
        and (is_explicit or re.search(rules["explicit"], item.row.text) is not None)
    )


def is_joinable(item: BankRow) -> bool:
    rules = load_compose()["join"]
    return (
        item.functionality in rules["from"]
        and item.pair is None
        and item.row.labels["risk"] in rules["risk"]
        and not str(item.row.labels["emotion"]).startswith("self_harm")
        and _stands_alone(item)
    )


def _stands_alone(item: BankRow) -> bool:
    words = [word.lower().replace("’", "'") for word in WORD.findall(item.row.text)]
    rules = load_compose()
    return (
        3 <= len(words) <= rules["longest_words"]
        and words[0] not in rules["not_first"]
        and _QUOTED.search(item.row.text) is None
        and "\n" not in item.row.text
    )


def join_labels(rows: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """Stress and risk: the severest. Emotion, sentiment: the one that is not neutral. None where two would compete."""
    schema = load_schema()
    joined: dict[str, str] = {}
    for name in ("emotion", "sentiment"):
        felt = {row[name] for row in rows} - {"neutral"}
        if len(felt) > 1:
            return None
        joined[name] = felt.pop() if felt else "neutral"
    for name in ("stress", "risk"):
        joined[name] = max((row[name] for row in rows), key=schema[name].index)
    return joined


@dataclass(frozen=True, slots=True)
class Post:
    text: str
    labels: Mapping[str, str]
    parts: tuple[str, ...]
    """Ids of all bank rows in it, in the order of the text."""


def splice(item: BankRow, pools: Pools, rng: Random) -> Post | None:
    """The labels of the risk row: the errands around it take nothing away."""
    if not is_spliceable(item) or len(pools.padding) < 2:
        return None
    first, last = rng.sample(pools.padding, 2)
    return Post(
        _write_post((first, item, last), item, rng), known_labels(item), (first.row.id, item.row.id, last.row.id)
    )


def join(item: BankRow, pools: Pools, rng: Random) -> Post | None:
    """The item between two plain rows, or one plain row and one of the same feeling."""
    others = [row for row in pools.padding if row is not item]
    if not is_joinable(item) or len(others) < 2:
        return None
    first, last = rng.sample(others, 2)
    same = [row for row in pools.companions[_feeling(item)] if row is not item and row is not first]
    if same and rng.random() < 0.3:
        last = rng.choice(same)
    parts = (first, item, last)
    labels = join_labels([known_labels(part) for part in parts])
    if labels is None:
        return None
    return Post(_write_post(parts, item, rng), labels, tuple(part.row.id for part in parts))


def known_labels(item: BankRow) -> dict[str, str]:
    return {name: str(label) for name, label in item.row.labels.items()}


def _write_post(parts: Sequence[BankRow], middle: BankRow, rng: Random) -> str:
    texts = []
    for part in parts:
        text = part.row.text.strip()
        if part is not middle:
            text = swap_slots(text, rng) or text
        # One hand wrote the post: what stands around a text with no capitals has none either.
        text = text.lower() if middle.row.text.islower() else text
        texts.append(text if _ENDS.search(text) else f"{text}.")
    return rng.choice((" ", " ", " ", "\n")).join(texts)
