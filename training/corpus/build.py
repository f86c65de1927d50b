"""The starter corpus: the bank, and open public sets where their folder is at hand.

    python -m training.corpus.build --out DIR [--data-dir D] [--public goemotions=3000 …] [--exclude FILE …]
                                    [--generate N]

Writes train.jsonl, val.jsonl and test.jsonl and prints counts. `val` serves early stopping and calibration, `test` the
report; both hold bank rows alone. The same input gives the same files.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from classifier.schema import GOLDEN_STATEMENTS
from training.corpus.bank import BANK_PATH, count_labels, read_bank
from training.corpus.generate import Options, generate
from training.corpus.held_out import HeldOut, read_held_out
from training.corpus.public import SETS, public_data_dir, read_public
from training.corpus.rows import SPLITS, Row, RowError, Split, iter_jsonl, text_key, write_rows

PUBLIC_CAPS: Mapping[str, int] = {
    "goemotions": 1500,
    "sad": 700,
    "cssrs_posts": 400,
    "cssrs_users": 20,
    "vader": 700,
}
"""Rows of each set: enough to broaden emotion and sentiment, few enough that the bank still leads."""
GOLDEN_WEIGHT = 5.0
"""Of the five statements: a bundle that gets one of them wrong is refused."""
PUBLIC_WEIGHT = 0.5
"""Of a public row beside one of the bank: other people's labels, another guideline."""


@dataclass(slots=True)
class Corpus:
    """Rows per split; a text stands in one split alone."""

    splits: dict[Split, list[Row]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    seen: set[str] = field(default_factory=set)

    def add(self, split: Split, row: Row) -> bool:
        """False where the text is known already or excluded."""
        key = text_key(row.text)
        if key in self.seen or (row.source != "golden" and key in read_held_out()):
            return False
        self.seen.add(key)
        self.splits[split].append(row)
        return True

    def write(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for split, rows in self.splits.items():
            write_rows(out / f"{split}.jsonl", sorted(rows, key=lambda row: row.id))


def golden_rows() -> list[Row]:
    """The five statements, as far as the schema fixes their labels: always in the training rows."""
    return [
        Row(f"golden-{place}", text, {"emotion": emotion, "risk": risk}, "golden", GOLDEN_WEIGHT)
        for place, (text, emotion, risk) in enumerate(GOLDEN_STATEMENTS, 1)
    ]


def read_keys(files: Iterable[Path]) -> set[str]:
    """Text keys that must not be trained on: of these evaluation files and of those known to us. Raises RowError."""
    return {text_key(str(raw.get("text", ""))) for path in files for _, raw in iter_jsonl(path)}


def build_corpus(bank: Path, data_dir: Path | None, caps: Mapping[str, int], excluded: Iterable[str] = ()) -> Corpus:
    """Raises RowError naming file and line."""
    corpus = Corpus(seen=set(excluded))
    for row in golden_rows():
        # Excluding an evaluation file must not take the five statements away.
        corpus.seen.discard(text_key(row.text))
        corpus.add("train", row)
    for item in read_bank(bank):
        corpus.add(item.split, item.row)
    if data_dir is not None:
        for name, cap in caps.items():
            _add_public(corpus, read_public(name, data_dir), cap)
    return corpus


def _add_public(corpus: Corpus, rows: Sequence[Row], cap: int) -> None:
    """The first `cap` rows in the order of their text keys: a fixed sample, whatever order the file has."""
    left = cap
    for row in sorted(rows, key=lambda item: text_key(item.text)):
        if left <= 0:
            return
        if corpus.add("train", Row(row.id, row.text, row.labels, row.source, PUBLIC_WEIGHT)):
            left -= 1


@dataclass(frozen=True, slots=True)
class Barred:
    """Text keys that no generated row may have."""

    known: frozenset[str]
    held_out: HeldOut

    def __contains__(self, key: object) -> bool:
        return key in self.known or key in self.held_out


def add_generated(corpus: Corpus, bank: Path, options: Options, excluded: Iterable[str] = ()) -> None:
    """Variants of the bank rows that the corpus trains on. They may share the letters of their own bank row alone."""
    kept = {row.id for row in corpus.splits["train"]}
    items = [item for item in read_bank(bank) if item.row.id in kept]
    own = {text_key(item.row.text) for item in items}
    known = frozenset((corpus.seen | set(excluded)) - own)
    corpus.splits["train"] += [item.row for item in generate(items, options, Barred(known, read_held_out()))]


def describe(corpus: Corpus) -> str:
    lines = []
    for split, rows in corpus.splits.items():
        # A generated row names its bank row too: one line each would be a list of the corpus.
        sources = Counter(":".join(row.source.split(":")[:2]) for row in rows)
        lines.append(f"{split}: {len(rows)} rows")
        lines.append("  " + ", ".join(f"{name} {count}" for name, count in sorted(sources.items())))
        for name, counts in count_labels(rows).items():
            lines.append(f"  {name}: " + ", ".join(f"{label} {count}" for label, count in sorted(counts.items())))
    return "\n".join(lines)


def _cap(raw: str) -> tuple[str, int]:
    name, _, count = raw.partition("=")
    if name not in SETS or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{raw!r}: expected SET=ROWS with a set of {', '.join(SETS)}")
    return name, int(count)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bank", type=Path, default=BANK_PATH)
    parser.add_argument("--data-dir", type=Path, default=public_data_dir(), help="public sets (default: HEED_DATA_DIR)")
    parser.add_argument("--public", type=_cap, action="append", default=[], metavar="SET=ROWS", help="change a cap")
    parser.add_argument("--exclude", type=Path, action="append", default=[], help="evaluation file: never train on it")
    parser.add_argument("--generate", type=int, default=0, metavar="N", help="variants of training rows to add")
    parser.add_argument("--seed", type=int, default=0, help="of the variants")


def build_from(args: argparse.Namespace) -> Corpus:
    """Builds and writes what the arguments ask for. Raises RowError, OSError."""
    excluded = read_keys(args.exclude)
    corpus = build_corpus(args.bank, args.data_dir, {**PUBLIC_CAPS, **dict(args.public)}, excluded)
    if args.generate:
        add_generated(corpus, args.bank, Options(args.generate, args.seed), excluded)
    corpus.write(args.out)
    return corpus


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.corpus.build", description="Build the starter corpus.")
    add_arguments(parser)
    try:
        corpus = build_from(parser.parse_args(argv))
    except (RowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(corpus))
    return 0


if __name__ == "__main__":
    sys.exit(main())
