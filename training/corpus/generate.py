"""Many texts from few: variants of the bank's training rows that keep their labels.

    python -m training.corpus.generate --count 12000 --out FILE [--seed 0] [--exclude FILE …]

Deterministic by seed. Only training rows are multiplied, and no variant may equal a held-out text. Operations look at
the labels only to stay true to them (emoji, exclamation marks), and harmless rows go through all of them too: no
spelling may come to stand for danger. Words and rules are in `grammar/*.toml`.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from training.corpus.bank import BANK_PATH, BankRow, count_labels, read_bank
from training.corpus.grammar import surface
from training.corpus.grammar.compose import Pools, Post, join, known_labels, splice
from training.corpus.grammar.nearness import Nearness, measure
from training.corpus.grammar.slots import WORD, swap_slots
from training.corpus.grammar.surface import Material, Operation
from training.corpus.rows import Row, RowError, iter_jsonl, text_key, write_rows

GENERATED_WEIGHT = 0.5
"""Of a generated row beside its bank row: it repeats what the bank row says, and only its surface is new."""
MAX_VARIANTS = 6
"""Of one bank row, so that no hand-written text drowns the others."""
MAX_POSTS = 3
"""Of one bank row in the middle; they count as variants."""
POST_SHARE = 0.1
"""Of all rows: posts of three, as many with a risk sentence inside as harmless ones of the same shape."""
_TRIES = 4
_STEPS = (1, 2, 2, 3)

SPELLINGS: Mapping[str, tuple[Operation, int]] = {
    "swap": (lambda item, rng: swap_slots(item.text, rng), 12),
    "contraction": (surface.toggle_contractions, 4),
    "slang": (surface.write_slang, 3),
    "leet": (surface.obfuscate, 4),
    "prefix": (surface.add_prefix, 1),
    "ending": (surface.change_ending, 2),
    "emoji": (surface.add_emoji, 2),
    "case": (surface.change_case, 2),
    "typo": (surface.make_typos, 2),
}
"""Operation and weight, in the order in which several are applied."""
_CLASHES = ({"leet", "typo"}, {"leet", "slang"})
_OF_POSTS = {"slang", "ending", "emoji", "case", "typo"}


@dataclass(frozen=True, slots=True)
class Variant:
    row: Row
    operation: str
    origin: BankRow
    parts: tuple[str, ...]
    """Ids of the bank rows in it: the origin alone, or the three of a post."""


@dataclass(frozen=True, slots=True)
class Options:
    count: int
    seed: int = 0
    max_variants: int = MAX_VARIANTS


Maker = Callable[[BankRow, Random], Variant | None]


@dataclass(slots=True)
class Generator:
    """Makes variants and keeps account of what exists: texts, their keys, and how many each bank row has."""

    items: Sequence[BankRow]
    options: Options
    held_out: Container[str]
    pools: Pools
    vocabulary: frozenset[str]
    texts: set[str] = field(default_factory=set)
    bank_keys: dict[str, str] = field(default_factory=dict)
    used_keys: set[str] = field(default_factory=set)
    made: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, items: Iterable[BankRow], options: Options, held_out: Container[str]) -> "Generator":
        kept = sorted((item for item in items if item.split == "train"), key=lambda item: item.row.id)
        vocabulary = frozenset(word for item in kept for word in WORD.findall(item.row.text) if word.islower())
        generator = cls(kept, options, held_out, Pools.of(kept), vocabulary)
        generator.texts = {item.row.text for item in kept}
        generator.bank_keys = {text_key(item.row.text): item.row.id for item in kept}
        return generator

    def run(self) -> list[Variant]:
        count, rounds = self.options.count, self.options.max_variants
        posts = min(MAX_POSTS, rounds)
        variants = self._fill("splice", self._splice, round(count * POST_SHARE / 2), posts)
        variants += self._fill("join", self._join, len(variants), posts)
        return variants + self._fill("spelling", self._spell, count - len(variants), rounds)

    def _fill(self, name: str, make: Maker, count: int, rounds: int) -> list[Variant]:
        """Walks the bank in rounds, one variant a row and round, until there are `count` or the rounds are over."""
        variants: list[Variant] = []
        for turn in range(rounds):
            order = list(self.items)
            # The last round is cut short: in file order it would leave out whole functionalities.
            Random(f"{self.options.seed}:{name}:{turn}").shuffle(order)
            for item in order:
                if len(variants) >= count:
                    return variants
                rng = Random(f"{self.options.seed}:{name}:{turn}:{item.row.id}")
                if self.made[item.row.id] <= turn and (variant := self._next_variant(item, make, rng)):
                    variants.append(variant)
        return variants

    def _next_variant(self, item: BankRow, make: Maker, rng: Random) -> Variant | None:
        for _ in range(_TRIES):
            made = make(item, rng)
            if made is not None and self._claim(made):
                self.made[item.row.id] += 1
                return made
        return None

    def _splice(self, item: BankRow, rng: Random) -> Variant | None:
        return self._finish(item, "splice", splice(item, self.pools, rng), rng)

    def _join(self, item: BankRow, rng: Random) -> Variant | None:
        return self._finish(item, "join", join(item, self.pools, rng), rng)

    def _finish(self, item: BankRow, name: str, post: Post | None, rng: Random) -> Variant | None:
        """The post, every other one in another spelling too."""
        if post is None:
            return None
        spelt, steps = self._respell(post, _pick_steps(rng.choice((0, 1)), _OF_POSTS, rng), rng)
        return _write_variant(item, [name, *steps], spelt)

    def _spell(self, item: BankRow, rng: Random) -> Variant | None:
        post = Post(item.row.text, known_labels(item), (item.row.id,))
        spelt, steps = self._respell(post, _pick_steps(rng.choice(_STEPS), SPELLINGS, rng), rng)
        return _write_variant(item, steps, spelt) if steps else None

    def _respell(self, post: Post, steps: Sequence[str], rng: Random) -> tuple[Post, list[str]]:
        """The post after the steps that apply to it, and their names."""
        applied = []
        for step in steps:
            text = SPELLINGS[step][0](Material(post.text, post.labels, self.vocabulary), rng)
            if text is not None:
                post = Post(text, post.labels, post.parts)
                applied.append(step)
        return post, applied

    def _claim(self, variant: Variant) -> bool:
        """False for a text that exists, is held out or another bank row's, or differs from a variant in signs alone."""
        text, key = variant.row.text, text_key(variant.row.text)
        is_foreign = self.bank_keys.get(key, variant.origin.row.id) != variant.origin.row.id
        if text in self.texts or key in self.held_out or key in self.used_keys or is_foreign:
            return False
        self.texts.add(text)
        self.used_keys.add(key)
        return True


def _pick_steps(count: int, among: Collection[str], rng: Random) -> list[str]:
    """Names of at most `count` operations that go together, in the order of SPELLINGS."""
    picked: list[str] = []
    while len(picked) < count:
        free = [
            name
            for name in SPELLINGS
            if name in among and name not in picked and not any({name, other} in _CLASHES for other in picked)
        ]
        picked += rng.choices(free, [SPELLINGS[name][1] for name in free])
    return [name for name in SPELLINGS if name in picked]


def _write_variant(item: BankRow, steps: Sequence[str], post: Post) -> Variant:
    operation = "+".join(steps)
    digest = hashlib.sha256(post.text.encode()).hexdigest()[:16]
    source = f"generated:{operation}:{item.functionality}:{item.row.id}"
    return Variant(Row(f"gen-{digest}", post.text, post.labels, source, GENERATED_WEIGHT), operation, item, post.parts)


def generate(items: Iterable[BankRow], options: Options, held_out: Container[str] = frozenset()) -> list[Variant]:
    """At most `count` variants of the training rows among `items`. `held_out`: text keys that none may have."""
    return Generator.of(items, options, held_out).run()


def read_held_out(items: Iterable[BankRow], files: Iterable[Path] = ()) -> frozenset[str]:
    """Text keys of the val and test rows and of evaluation files. Raises RowError."""
    own = {text_key(item.row.text) for item in items if item.split != "train"}
    return frozenset(own | {text_key(str(raw.get("text", ""))) for path in files for _, raw in iter_jsonl(path)})


def measure_variants(variants: Sequence[Variant]) -> Nearness:
    return measure(
        [variant.row.text for variant in variants],
        [variant.origin.row.text for variant in variants],
        [variant.origin.row.id for variant in variants],
    )


def describe(variants: Sequence[Variant]) -> str:
    """Counts per operation with the share of risk rows, per label, and how often bank rows were used."""
    steps: Counter[str] = Counter()
    risky: Counter[str] = Counter()
    for variant in variants:
        for step in variant.operation.split("+"):
            steps[step] += 1
            risky[step] += variant.row.labels["risk"] in ("medium", "high")
    origins = Counter(variant.origin.row.id for variant in variants)
    padding = Counter(part for variant in variants for part in variant.parts if part != variant.origin.row.id)
    lines = [f"{len(variants)} rows of {len(origins)} bank rows, weight {GENERATED_WEIGHT}"]
    lines.append(f"  most of one bank row: {max(origins.values(), default=0)}")
    lines.append(f"  most posts around one plain row: {max(padding.values(), default=0)}")
    lines.append("operations (share with medium or high risk):")
    lines += [f"  {step} {count} ({risky[step] / count:.0%})" for step, count in sorted(steps.items())]
    for name, counts in count_labels(variant.row for variant in variants).items():
        lines.append(f"{name}: " + ", ".join(f"{label} {count}" for label, count in sorted(counts.items())))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.corpus.generate", description="Multiply the bank.")
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-variants", type=int, default=MAX_VARIANTS, help="of one bank row")
    parser.add_argument("--bank", type=Path, default=BANK_PATH)
    parser.add_argument(
        "--exclude", type=Path, action="append", default=[], help="evaluation file: equal no text of it"
    )
    args = parser.parse_args(argv)
    try:
        items = read_bank(args.bank)
        held_out = read_held_out(items, args.exclude)
        kept = [item for item in items if text_key(item.row.text) not in held_out]
        variants = generate(kept, Options(args.count, args.seed, args.max_variants), held_out)
        write_rows(args.out, (variant.row for variant in variants))
    except (RowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(variants))
    print(measure_variants(variants))
    return 0


if __name__ == "__main__":
    sys.exit(main())
