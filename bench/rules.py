"""What a text costs the rules, as rules and texts grow.

    python -m bench.rules [--texts N] [--megabytes N]

10,000 literals and 500 expressions beside the shipped scopes and spelling, on texts of 200 characters; the baseline is
the same engine with 1,000 literals. Then long texts against a tenth of them: ordinary ones, and those that are made to
be slow. The last line is one JSON object: `median_us`, `growth_1k_10k`, `mb10_seconds` (ordinary text) and
`linear_ratio` (the worst of all: time for a character of the whole text over that of its tenth; 1 is linear, 10
quadratic). All times are processor time of this process, so that other work on the machine does not count.
"""

import argparse
import json
import random
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

from classifier.rules import DATA_DIR, RuleSet
from classifier.rules.patterns import read_tables
from training.corpus.bank import read_bank

LITERALS = 10_000
FEW_LITERALS = 1_000
EXPRESSIONS = 500
TEXT_CHARACTERS = 200
MEGABYTE = 1_000_000
SHARE = 10
PASSAGE = 50_000
"""Ordinary text is a passage again and again, so that its tenth has the same rules at work."""
WORD = re.compile(r"[a-z']{3,}")
SLOW_UNITS = ("a", "k i l l ", "a-", "k*", "\u0301", " \n", "@", "I want to kill myself. ")


def make_texts(bank: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Bank texts joined and cut to one length."""
    order = rng.sample(bank, len(bank))
    texts, whole = [], " ".join(order)
    for start in range(0, min(count * TEXT_CHARACTERS, len(whole) - TEXT_CHARACTERS), TEXT_CHARACTERS):
        texts.append(whole[start : start + TEXT_CHARACTERS])
    return texts


def make_tables(words: Sequence[str], texts: Sequence[str], literals: int) -> dict[str, dict[str, Any]]:
    """Phrases of two to five words. One in a hundred stands in the texts, so that hits are judged, too."""
    rng = random.Random(literals)
    phrases = [" ".join(rng.choices(words, k=rng.randint(2, 5))) for _ in range(literals - literals // 100)]
    phrases += [" ".join(rng.choice(texts).lower().split()[3:5]) for _ in range(literals // 100)]
    expressions = [
        rf"\b{rng.choice(words)} (?:{'|'.join(rng.sample(words, 3))}) (?:\w+ ){{0,2}}?{rng.choice(words)}\b"
        for _ in range(EXPRESSIONS)
    ]
    each = literals // EXPRESSIONS
    rules = [
        {
            "id": f"bench.{number}",
            "kind": "block",
            "floor": "medium",
            "literals": phrases[number * each : (number + 1) * each],
            "expressions": [expression],
        }
        for number, expression in enumerate(expressions)
    ]
    shipped = read_tables(DATA_DIR)
    beside = {name: {"scope": table["scope"]} for name, table in shipped.items() if "scope" in table}
    beside |= {name: {"spelling": table["spelling"]} for name, table in shipped.items() if "spelling" in table}
    return {**beside, "bench.toml": {"rule": rules}}


def time_texts(rules: RuleSet, texts: Sequence[str]) -> list[float]:
    """Seconds for each text, the best of three: the machine may be busy with other work."""
    for text in texts:
        rules.apply(text)
    rounds = [[time_once(rules, text) for text in texts] for _ in range(3)]
    return [min(times) for times in zip(*rounds, strict=True)]


def time_once(rules: RuleSet, text: str) -> float:
    started = time.process_time()
    rules.apply(text)
    return time.process_time() - started


def time_length(rules: RuleSet, unit: str, characters: int) -> tuple[float, float]:
    """Seconds for so many characters, and the ratio of the time for one to that in a tenth of them."""
    whole = (unit * (characters // len(unit) + 1))[:characters]
    tenth = whole[: characters // SHARE]
    small = min(time_once(rules, tenth) for _ in range(3))
    large = min(time_once(rules, whole) for _ in range(2))
    return large, large / (small * SHARE)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a text costs the rules.")
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--megabytes", type=int, default=10)
    args = parser.parse_args()
    rng = random.Random(13)
    bank = [item.row.text for item in read_bank()]
    words = sorted({word for text in bank for word in WORD.findall(text.lower())})
    texts = make_texts(bank, args.texts, rng)
    medians = {}
    for literals in (FEW_LITERALS, LITERALS):
        started = time.process_time()
        rules = RuleSet(make_tables(words, texts, literals))
        built_s = time.process_time() - started
        times = sorted(time_texts(rules, texts))
        medians[literals] = statistics.median(times) * 1e6
        p99_us = times[int(0.99 * len(times))] * 1e6
        print(f"{literals} literals: built in {built_s:.2f} s, median {medians[literals]:.0f} µs, p99 {p99_us:.0f} µs")
    shipped = RuleSet.load()
    shipped_us = statistics.median(time_texts(shipped, texts)) * 1e6
    print(f"shipped rules: median {shipped_us:.0f} µs")
    seconds, ratio = time_length(shipped, " ".join(bank)[:PASSAGE], args.megabytes * MEGABYTE)
    print(f"{args.megabytes} MB of ordinary text: {seconds:.1f} s, ratio {ratio:.2f}")
    worst = ratio
    for unit in SLOW_UNITS:
        unit_s, unit_ratio = time_length(shipped, unit, MEGABYTE)
        worst = max(worst, unit_ratio)
        print(f"1 MB of {unit!r}: {unit_s:.1f} s, ratio {unit_ratio:.2f}")
    figures = {
        "median_us": round(medians[LITERALS], 1),
        "growth_1k_10k": round(medians[LITERALS] / medians[FEW_LITERALS], 2),
        "mb10_seconds": round(seconds, 2),
        "linear_ratio": round(worst, 2),
    }
    print(json.dumps({"bench": "rules", **figures}))


if __name__ == "__main__":
    main()
