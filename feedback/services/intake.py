"""Texts in: pasted, from JSONL or CSV files, or by the API. One bad row never loses the good ones."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

from django.db import connection, transaction

from feedback import tasks
from feedback.errors import InvalidInput
from feedback.models import MAX_TEXT_CHARACTERS, Document, IntakeBatch, Person, hash_text
from feedback.services import audit

MAX_ID_CHARACTERS = 200
INTAKE_LOCK = 0x48454546
"""Key of the advisory lock that puts intakes in a row: two that share texts would wait for each other in circles."""

csv.field_size_limit(64 * 1024 * 1024)  # an over-long field is a problem of its row, not of the file


@dataclass(frozen=True, slots=True)
class IntakeRow:
    row: int
    """As a person counts them in their file: from 1; a CSV file's heading is row 1."""
    text: str
    external_id: str = ""


@dataclass(frozen=True, slots=True)
class IntakeProblem:
    row: int
    field: str
    reason: str
    """What is wrong and what would cure it."""


Parsed = IntakeRow | IntakeProblem


def as_row(problem: IntakeProblem) -> dict[str, Any]:
    """The JSON form, kept in a batch's problems."""
    return asdict(problem)


def parse_paste(text: str) -> Iterator[Parsed]:
    """One text a line."""
    for row, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield check_row(row, line.strip())


def parse_jsonl(data: bytes) -> Iterator[Parsed]:
    """One `{"text", "id"?}` a line, in UTF-8."""
    for row, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield parse_object(row, line)


def parse_object(row: int, line: bytes) -> Parsed:
    value = load_json(row, line)
    return value if isinstance(value, IntakeProblem) else check_object(row, value)


def load_json(row: int, line: bytes) -> Any:
    """The JSON value, or an IntakeProblem."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return IntakeProblem(row, "text", f"not UTF-8 at byte {error.start + 1}: save the file as UTF-8")
    except json.JSONDecodeError as error:
        return IntakeProblem(row, "row", f"broken JSON at character {error.colno}: {error.msg}")
    except (ValueError, RecursionError):
        return IntakeProblem(row, "row", "JSON with a number too long or nesting too deep: send a plain object")


def parse_objects(values: Iterable[Any]) -> Iterator[Parsed]:
    """The same objects, parsed already."""
    return (check_object(row, value) for row, value in enumerate(values, start=1))


def check_object(row: int, value: Any) -> Parsed:
    if not isinstance(value, dict):
        return IntakeProblem(row, "row", 'expected an object such as {"text": "…"}')
    if "text" not in value:
        return IntakeProblem(row, "text", "the field text is missing")
    external_id = value.get("id")
    if external_id is not None and (isinstance(external_id, bool) or not isinstance(external_id, str | int)):
        return IntakeProblem(row, "id", "the id must be a string or a whole number")
    return check_row(row, value["text"], "" if external_id is None else str(external_id))


def parse_csv(data: bytes) -> Iterator[Parsed]:
    """A file with a heading that names a column `text` and, if wanted, `id`; comma, semicolon or tab between them."""
    table = _decode_table(data)
    heading_line = table.partition("\n")[0]
    delimiter = max(",;\t", key=heading_line.count)
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=delimiter)
    heading = [name.strip().lower() for name in next(reader, [])]
    if "text" not in heading:
        yield IntakeProblem(1, "text", "the first line must name the columns, one of them text")
        return
    for row, cells in enumerate(reader, start=2):
        if any(cell.strip() for cell in cells):
            yield _check_cells(row, dict(zip(heading, cells, strict=False)))


def _decode_table(data: bytes) -> str:
    """Undecodable bytes become lone surrogates, so that they count against their own row only."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data[: len(data) // 2 * 2].decode("utf-16", errors="surrogatepass")
    return data.decode("utf-8-sig", errors="surrogateescape")


def _check_cells(row: int, cells: dict[str, str]) -> Parsed:
    if "text" not in cells:
        return IntakeProblem(row, "text", "the row has fewer cells than the heading")
    return check_row(row, cells["text"], cells.get("id", "").strip())


def parse_file(name: str, data: bytes) -> Iterator[Parsed]:
    """By the name's ending. Raises InvalidInput for one that is neither JSONL nor CSV."""
    ending = name.rpartition(".")[2].lower()
    if ending in ("jsonl", "ndjson"):
        return parse_jsonl(data)
    if ending in ("csv", "tsv"):
        return parse_csv(data)
    raise InvalidInput("the file's name must end in .jsonl or .csv")


def check_row(row: int, text: Any, external_id: str = "") -> Parsed:
    """The row if its text can be kept, else the problem."""
    if reason := _refuse_text(text):
        return IntakeProblem(row, "text", reason)
    if len(external_id) > MAX_ID_CHARACTERS:
        return IntakeProblem(row, "id", f"longer than {MAX_ID_CHARACTERS} characters")
    if not _is_storable(external_id):
        return IntakeProblem(row, "id", "holds a NUL character or bytes that are not UTF-8")
    return IntakeRow(row, text, external_id)


def _refuse_text(text: Any) -> str:
    """Why the text cannot be kept; empty when it can."""
    if not isinstance(text, str):
        return "the text must be a string"
    if not text.strip():
        return "the text is empty"
    if "\x00" in text:
        return "holds a NUL character: remove it, or check that the file is a text file"
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"{len(text)} characters, at most {MAX_TEXT_CHARACTERS}: split it"
    if not _is_storable(text):
        return "holds bytes that are not UTF-8: save the file as UTF-8"
    return ""


def _is_storable(value: str) -> bool:
    return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def add_documents(
    rows: Iterable[Parsed], *, kind: str, by: Person | None, name: str = "", score_later: bool = True
) -> IntakeBatch:
    """Keep the good rows as documents and the bad ones as the batch's problems.

    `score_later=False` is for a caller who scores at once; a text that then stays unscored is picked up by the beat.
    """
    good, problems = split_rows(rows)
    with transaction.atomic():
        batch = IntakeBatch.objects.create(kind=kind, name=name[:200], created_by=by)
        ids = insert_documents(batch, good)
        finish_batch(batch, accepted=len(ids), known=len(good) - len(ids), problems=problems)
        audit.record("add_documents", batch, by=by, data={"accepted": batch.accepted, "refused": batch.refused})
        if score_later:
            tasks.score_on_commit(ids)
    return batch


GoodRow = TypeVar("GoodRow")


def split_rows(rows: Iterable[GoodRow | IntakeProblem]) -> tuple[list[GoodRow], list[IntakeProblem]]:
    good: list[GoodRow] = []
    problems: list[IntakeProblem] = []
    for row in rows:
        if isinstance(row, IntakeProblem):
            problems.append(row)
        else:
            good.append(row)
    return good, problems


def finish_batch(batch: IntakeBatch, *, accepted: int, known: int, problems: list[IntakeProblem]) -> None:
    batch.accepted = accepted
    batch.known = known
    batch.refused = len(problems)
    batch.problems = [as_row(problem) for problem in problems]
    batch.save(update_fields=["accepted", "known", "refused", "problems"])


def insert_documents(batch: IntakeBatch, rows: Iterable[IntakeRow]) -> list[int]:
    """The ids of the new documents, in the order of the rows; a text that is here already makes none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [INTAKE_LOCK])
    waiting = iter(rows)
    while chunk := list(islice(waiting, 1000)):
        documents = [
            Document(batch=batch, text=row.text, text_hash=hash_text(row.text), external_id=row.external_id)
            for row in chunk
        ]
        Document.objects.bulk_create(documents, ignore_conflicts=True)
    return list(Document.objects.filter(batch=batch).order_by("id").values_list("id", flat=True))
