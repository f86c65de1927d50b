"""Classify one text, or a JSONL file of any size in constant memory.

    python -m classifier.cli "some text"
    python -m classifier.cli --in texts.jsonl --out decisions.jsonl [--bundle DIR]

Input rows are `{"id", "text"}`. Output rows, in the same order, are `{"id", "labels", "probabilities", "evidence",
"release"}`, or `{"id", "error"}` for a row that could not be read or scored; exit code 3 says that there were such.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from classifier.api import (
    ARMS_FAILED,
    BAD_ENCODING,
    BINARY,
    EMPTY,
    MAX_CHARACTERS,
    TOO_LONG,
    UNCERTAIN,
    Classifier,
    load,
    serving_bundle,
)
from classifier.errors import ClassifierError
from classifier.types import Decision

BATCH_ROWS = 64
EXIT_FAILED_ROWS = 3

REASONS = {
    EMPTY: "text is empty",
    TOO_LONG: f"text is longer than {MAX_CHARACTERS} characters: split it",
    BINARY: "text is binary data, or mostly control characters",
    BAD_ENCODING: "text holds broken characters: encode the file as UTF-8",
    ARMS_FAILED: "no model could score the text: it needs a human",
    UNCERTAIN: "the models are too uncertain of its risk: it needs a human",
}


@dataclass(frozen=True, slots=True)
class InputRow:
    """`text` is None where `error` says why. `id` is None where not even that could be read."""

    line: int
    size: int
    """Bytes."""
    id: str | int | None = None
    text: str | None = None
    error: str | None = None


def classify_file(in_path: Path, out_path: Path, classifier: Classifier, *, progress: bool = False) -> int:
    """The number of rows that failed. The output appears whole or not at all: written beside, then renamed."""
    temporary = out_path.with_name(f".{out_path.name}.{os.getpid()}.tmp")
    failed = 0
    try:
        with (
            in_path.open("rb") as source,
            temporary.open("w", encoding="utf-8") as sink,
            tqdm(total=in_path.stat().st_size, unit="B", unit_scale=True, disable=not progress, file=sys.stderr) as bar,
        ):
            rows = read_rows(source)
            while batch := list(islice(rows, BATCH_ROWS)):
                for answer in classify_rows(batch, classifier):
                    failed += "error" in answer
                    sink.write(json.dumps(answer) + "\n")
                bar.update(sum(row.size for row in batch))
        temporary.replace(out_path)
    finally:
        temporary.unlink(missing_ok=True)
    return failed


def read_rows(lines: Iterator[bytes] | Any) -> Iterator[InputRow]:
    """Every line that is not blank, good or bad."""
    for number, raw in enumerate(lines, 1):
        if raw.strip():
            yield parse_row(number, raw)


def parse_row(line: int, raw: bytes) -> InputRow:
    """Errors name field and cure, never the text."""

    def bad(error: str, row_id: str | int | None = None) -> InputRow:
        return InputRow(line, len(raw), id=row_id, error=error)

    try:
        row = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return bad(f"not UTF-8 (byte {error.start + 1} of the line): encode the file as UTF-8")
    except json.JSONDecodeError as error:
        return bad(f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError):
        return bad("not JSON that can be read")
    if not isinstance(row, dict):
        return bad('not an object: write {"id": …, "text": …}')
    row_id = row.get("id")
    if not isinstance(row_id, str | int) or isinstance(row_id, bool) or row_id == "":
        return bad("id is missing" if "id" not in row else "id must be a string or a whole number")
    if not isinstance(row.get("text"), str):
        return bad("text is missing" if "text" not in row else "text must be a string", row_id)
    return InputRow(line, len(raw), id=row_id, text=row["text"])


def classify_rows(rows: Sequence[InputRow], classifier: Classifier) -> Iterator[dict[str, Any]]:
    decisions = iter(classifier.decide([row.text for row in rows if row.text is not None]))
    for row in rows:
        if row.text is not None:
            yield {"id": row.id, **render(next(decisions))}
        elif row.id is not None:
            yield {"id": row.id, "error": row.error}
        else:
            yield {"id": None, "line": row.line, "error": row.error}


def render(decision: Decision) -> dict[str, Any]:
    if decision.unscored is not None:
        return {"error": REASONS.get(decision.unscored, decision.unscored)}
    whole = decision.as_dict()
    return {name: whole[name] for name in ("labels", "probabilities", "evidence", "release")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", help="one text to classify; or use --in and --out")
    parser.add_argument("--in", dest="in_path", type=Path, metavar="FILE", help='JSONL of {"id", "text"}')
    parser.add_argument("--out", dest="out_path", type=Path, metavar="FILE", help="JSONL of decisions")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the bundle that serves")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """The exit code. Leaves through `parser.error` for a wrong call."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if (args.text is None) == (args.in_path is None) or (args.in_path is None) != (args.out_path is None):
        parser.error("give either one text, or both --in and --out")
    if args.in_path is not None and not args.in_path.is_file():
        parser.error(f"--in: {args.in_path} is no file")
    if args.out_path is not None and not args.out_path.absolute().parent.is_dir():
        parser.error(f"--out: the folder {args.out_path.parent} does not exist")
    release, bundle = (None, args.bundle) if args.bundle else serving_bundle()
    classifier = load(bundle, release=release)
    if args.text is not None:
        answer = render(classifier.decide([args.text])[0])
        print(json.dumps(answer, indent=2))
        return EXIT_FAILED_ROWS if "error" in answer else 0
    failed = classify_file(args.in_path, args.out_path, classifier, progress=not args.no_progress)
    if failed:
        print(f"{failed} rows could not be classified; each has an error in {args.out_path}", file=sys.stderr)
    return EXIT_FAILED_ROWS if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m classifier.cli", description="Classify texts.")
    add_arguments(parser)
    try:
        return run(parser, parser.parse_args(argv))
    except ClassifierError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
