from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.errors import InvalidInput
from feedback.models import MAX_TEXT_CHARACTERS, Document, IntakeBatch, hash_text
from feedback.services.intake import (
    IntakeProblem,
    IntakeRow,
    add_documents,
    parse_csv,
    parse_file,
    parse_jsonl,
    parse_objects,
    parse_paste,
)
from tests.cast import setup_cast, setup_document
from tests.feedback.threads import run_together

TEN_MEGABYTES = "a" * 10_000_000


def lines(*values: Any) -> bytes:
    return b"\n".join(value if isinstance(value, bytes) else json.dumps(value).encode() for value in values)


def problem_of(parsed: list[IntakeRow | IntakeProblem]) -> tuple[int, str]:
    [problem] = [row for row in parsed if isinstance(row, IntakeProblem)]
    return problem.row, problem.field


class TestPaste:
    def test_each_line_is_a_text(self) -> None:
        assert list(parse_paste("one\n\n  two  \n")) == [IntakeRow(1, "one"), IntakeRow(3, "two")]


class TestJsonl:
    def test_reads_text_and_id(self) -> None:
        data = "\ufeff".encode() + lines({"text": "one", "id": "a"}, {"text": "two", "id": 7}) + b"\r\n"
        assert list(parse_jsonl(data)) == [IntakeRow(1, "one", "a"), IntakeRow(2, "two", "7")]

    def test_broken_row_7_of_9_loses_only_itself(self) -> None:
        rows: list[Any] = [{"text": f"text {number}"} for number in range(1, 10)]
        rows[6] = b'{"text": "text 7'
        parsed = list(parse_jsonl(lines(*rows)))
        assert problem_of(parsed) == (7, "row")
        assert [row.row for row in parsed if isinstance(row, IntakeRow)] == [1, 2, 3, 4, 5, 6, 8, 9]

    @pytest.mark.parametrize(
        ("bad", "field"),
        [
            (b'{"text": "\xff"}', "text"),
            (b'{"text": "a\\u0000b"}', "text"),
            (b'{"text": "\\ud83d"}', "text"),
            (b'{"text": "   "}', "text"),
            (b'{"text": 5}', "text"),
            (b'{"txt": "a"}', "text"),
            (b'{"text": "a", "id": [1]}', "id"),
            (b'{"text": "a", "id": "\\u0000"}', "id"),
            (b'["a"]', "row"),
            (b"[" * 100_000, "row"),
            (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", "row"),
            (json.dumps({"text": "a" * (MAX_TEXT_CHARACTERS + 1)}).encode(), "text"),
            (json.dumps({"text": TEN_MEGABYTES}).encode(), "text"),
        ],
        ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else value,
    )
    def test_bad_row_names_row_and_field_and_keeps_the_others(self, bad: bytes, field: str) -> None:
        parsed = list(parse_jsonl(lines({"text": "good"}, bad, {"text": "also good"})))
        assert problem_of(parsed) == (2, field)
        assert [row.text for row in parsed if isinstance(row, IntakeRow)] == ["good", "also good"]

    @given(st.lists(st.binary(max_size=60)))
    def test_any_bytes_become_rows_or_problems(self, chunks: list[bytes]) -> None:
        data = b"\n".join(chunks)
        for row in parse_jsonl(data):
            assert isinstance(row, IntakeProblem | IntakeRow)
            assert 1 <= row.row <= data.count(b"\n") + 1


class TestCsv:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_reads_quotes_newlines_and_the_usual_delimiters(self, delimiter: str, encoding: str) -> None:
        table = f'id{delimiter}Text\r\n1{delimiter}"say ""hi""{delimiter}\nthere"\r\n\r\n2{delimiter}naïve\r\n'
        parsed = list(parse_csv(table.encode(encoding)))
        assert parsed == [IntakeRow(2, f'say "hi"{delimiter}\nthere', "1"), IntakeRow(4, "naïve", "2")]

    def test_heading_must_name_the_text(self) -> None:
        assert problem_of(list(parse_csv(b"a,b\n1,2\n"))) == (1, "text")

    @pytest.mark.parametrize("bad", [b"x,\xff", b"x,a\x00b", b"x", b"x," + TEN_MEGABYTES.encode()])
    def test_bad_row_keeps_the_others(self, bad: bytes) -> None:
        parsed = list(parse_csv(b"id,text\n1,good\n" + bad + b"\n2,also good\n"))
        assert problem_of(parsed) == (3, "text")
        assert [row.text for row in parsed if isinstance(row, IntakeRow)] == ["good", "also good"]

    @given(st.binary(max_size=200))
    def test_any_bytes_become_rows_or_problems(self, data: bytes) -> None:
        for row in parse_csv(b"text\n" + data):
            assert isinstance(row, IntakeProblem | IntakeRow)


def test_file_is_read_by_its_ending() -> None:
    assert list(parse_file("A.CSV", b"text\none\n")) == [IntakeRow(2, "one")]
    assert list(parse_file("a.jsonl", lines({"text": "one"}))) == [IntakeRow(1, "one")]
    with pytest.raises(InvalidInput, match=r"\.jsonl or \.csv"):
        parse_file("a.xlsx", b"")


class TestHash:
    @pytest.mark.parametrize("other", ["  I AM fine!! ", "i am\nfine", "I am fi\u200bne", "Ｉ am fine"])
    def test_copies_are_one(self, other: str) -> None:
        assert hash_text(other) == hash_text("I am fine.")

    @pytest.mark.parametrize(("one", "other"), [("😀", "😭"), ("!!!", "???"), ("कि", "का"), ("not fine", "fine")])
    def test_different_texts_are_two(self, one: str, other: str) -> None:
        assert hash_text(one) != hash_text(other)


@pytest.mark.django_db
class TestAdding:
    def test_counts_accepted_known_and_refused(self) -> None:
        setup_document(text="here already", state="unscored")
        values = [{"text": "new"}, {"text": "Here already!"}, {"text": "NEW"}, {"text": ""}]
        batch = add_documents(parse_objects(values), kind=IntakeBatch.Kind.API, by=setup_cast().ada, name="a name")
        batch.refresh_from_db()
        assert (batch.accepted, batch.known, batch.refused) == (1, 2, 1)
        assert batch.problems == [{"row": 4, "field": "text", "reason": "the text is empty"}]
        assert list(batch.documents.values_list("text", flat=True)) == ["new"]

    def test_documents_keep_the_order_of_the_rows(self) -> None:
        texts = [f"text {number}" for number in range(2500)]
        batch = add_documents((IntakeRow(row, text) for row, text in enumerate(texts)), kind="api", by=None)
        assert list(batch.documents.order_by("id").values_list("text", flat=True)) == texts

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.text(max_size=40), max_size=8))
    def test_whatever_is_accepted_can_be_read_back(self, texts: list[str]) -> None:
        batch = add_documents(parse_objects({"text": text} for text in texts), kind=IntakeBatch.Kind.API, by=None)
        assert batch.accepted + batch.known + batch.refused == len(texts)
        assert set(batch.documents.values_list("text", flat=True)) <= set(texts)


@pytest.mark.django_db(transaction=True)
def test_intakes_that_share_texts_in_other_orders_do_not_deadlock() -> None:
    rows = [IntakeRow(number, f"text {number}") for number in range(1500)]

    def add(ordered: list[IntakeRow]) -> int:
        return add_documents(ordered, kind=IntakeBatch.Kind.API, by=None, score_later=False).accepted

    counts = run_together(lambda: add(rows), lambda: add(rows[::-1]), lambda: add(rows))
    assert sorted(counts) == [0, 0, 1500]  # type: ignore[type-var]
    assert Document.objects.count() == 1500
