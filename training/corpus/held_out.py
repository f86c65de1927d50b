"""Texts that no release may learn from: those of the evaluation sets, known here by their keys alone.

    python -m training.corpus.held_out FILE …     # add the texts of evaluation files

`held_out.txt` holds the first KEY_DIGITS hex digits of each text's key (SHA-256 of the normalised text): enough to
recognise a text, not to read one.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from training.corpus.rows import RowError, iter_jsonl, text_key

HELD_OUT_PATH = Path(__file__).with_name("held_out.txt")
KEY_DIGITS = 14
"""At 10^5 keys against 10^6 texts the chance of one false match is about 10^-6."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    digits: frozenset[str]

    def __contains__(self, key: object) -> bool:
        """Is this the key (`rows.text_key`) of an evaluation text?"""
        return isinstance(key, str) and key[:KEY_DIGITS] in self.digits

    def __len__(self) -> int:
        return len(self.digits)


@cache
def read_held_out(path: Path = HELD_OUT_PATH) -> HeldOut:
    return HeldOut(frozenset(path.read_text(encoding="ascii").split()))


def add_texts(files: Iterable[Path], path: Path = HELD_OUT_PATH) -> int:
    """Number of keys added. Raises RowError, OSError."""
    known = set(read_held_out(path).digits) if path.is_file() else set()
    found = {text_key(str(raw["text"]))[:KEY_DIGITS] for file in files for _, raw in iter_jsonl(file)}
    path.write_text("".join(f"{key}\n" for key in sorted(known | found)), encoding="ascii")
    read_held_out.cache_clear()
    return len(found - known)


def main(argv: list[str]) -> int:
    try:
        print(f"{add_texts(map(Path, argv))} keys added")
    except (RowError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
