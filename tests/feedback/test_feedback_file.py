from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.errors import InvalidInput
from feedback.models import Annotation, AuditEvent, Document
from feedback.models.labels import SCHEMA
from feedback.services.feedback_file import import_feedback, iter_feedback_file, iter_records_jsonl
from tests.cast import LABELS, Cast, setup_annotation, setup_cast, setup_document

LINE = "emotion: neutral, sentiment: neutral, stress: low, risk: none"


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


def row(text: str = "a text", **fields: Any) -> dict[str, Any]:
    return {"text": text, "correct_labels": None, "incorrect_labels": None, "feedback": None} | fields


def export() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(b"".join(iter_feedback_file()))
    return rows


def load(cast: Cast, *rows: Any) -> Any:
    return import_feedback(json.dumps(rows).encode(), by=cast.ada)


class TestExport:
    def test_empty_export_is_an_empty_list(self, cast: Cast) -> None:
        assert export() == []

    def test_each_verdict_has_its_form(self, cast: Cast) -> None:
        for verdict in ("correct", "incorrect", "skip", "unsure"):
            setup_annotation(cast.ana, document=setup_document(text=verdict), verdict=verdict)
        document = setup_document(text="corrected")
        setup_annotation(cast.ana, document=document, verdict="corrected", labels={"risk": "low"}, comment="why")
        assert export() == [
            row("correct", correct_labels=LINE),
            row("incorrect", incorrect_labels=LINE),
            row("corrected", correct_labels=LINE.replace("none", "low"), incorrect_labels=LINE, feedback="why"),
        ]

    def test_undone_answers_are_left_out(self, cast: Cast) -> None:
        annotation = setup_annotation(cast.ana)
        Annotation.objects.filter(pk=annotation.pk).update(undone_at=annotation.created_at)
        assert export() == []

    def test_full_record_names_votes_and_release_but_not_the_person(self, cast: Cast) -> None:
        document = setup_document(text="a text", external_id="x1")
        annotation = setup_annotation(cast.ana, document=document, active_ms=900)
        [record] = [json.loads(line) for line in iter_records_jsonl()]
        assert record["document"] == document.pk
        assert record["release"] == annotation.prediction.release.name  # type: ignore[union-attr]
        assert record["votes"]["bert"] == record["votes"]["llm"] == LABELS
        assert (record["external_id"], record["active_ms"], record["labels"]) == ("x1", 900, LABELS)
        assert "ana" not in json.dumps(record)


class TestImport:
    def test_makes_the_document_and_the_answer(self, cast: Cast) -> None:
        batch = load(cast, row(correct_labels=LINE, incorrect_labels={"risk": "high"}, feedback="why"))
        annotation = Annotation.objects.get()
        assert (batch.accepted, batch.known, batch.refused) == (1, 0, 0)
        assert (annotation.verdict, annotation.origin, annotation.comment) == ("corrected", "import", "why")
        assert (annotation.labels, annotation.judged_labels) == (LABELS, {"risk": "high"})
        document = Document.objects.get()
        assert (document.text, document.answers) == ("a text", 1)

    def test_same_file_twice_is_imported_once(self, cast: Cast) -> None:
        rows = [row(correct_labels=LINE), row(correct_labels=LINE), row("other", incorrect_labels=LINE)]
        assert load(cast, *rows).accepted == 3
        again = load(cast, *rows)
        assert (again.accepted, again.known) == (0, 3)
        assert sorted(Document.objects.values_list("answers", flat=True)) == [1, 2]

    def test_json_lines_are_read_as_well(self, cast: Cast) -> None:
        rows: list[Any] = [row(f"text {number}", correct_labels=LINE) for number in range(1, 10)]
        lines = [json.dumps(value).encode() for value in rows]
        lines[6] = b'{"text": "text 7'
        batch = import_feedback(b"\n".join(lines), by=cast.ada)
        assert (batch.accepted, [problem["row"] for problem in batch.problems]) == (8, [7])

    @pytest.mark.parametrize(
        ("bad", "field", "reason"),
        [
            (row(correct_labels="risk: extreme"), "correct_labels", "risk is 'extreme', expected one of"),
            (row(incorrect_labels={"mood": "sad"}), "incorrect_labels", "unknown dimension 'mood'"),
            (row(correct_labels="risk"), "correct_labels", "not of the form"),
            (row(correct_labels=["risk"]), "correct_labels", "expected a line"),
            (row(correct_labels=LINE, incorrect_labels=LINE), "incorrect_labels", "one of the two must differ"),
            (row(), "correct_labels", "give correct_labels"),
            (row(correct_labels=LINE, feedback="\x00"), "feedback", "NUL"),
            (row("\x00", correct_labels=LINE), "text", "NUL"),
            ({"correct_labels": LINE}, "text", "missing"),
            ("a text", "row", "expected an object"),
        ],
    )
    def test_bad_row_names_row_field_and_cure_and_keeps_the_others(
        self, cast: Cast, bad: Any, field: str, reason: str
    ) -> None:
        batch = load(cast, row("good", correct_labels=LINE), bad, row("also good", correct_labels=LINE))
        [problem] = batch.problems
        assert (problem["row"], problem["field"]) == (2, field)
        assert reason in problem["reason"]
        assert batch.accepted == 2

    @pytest.mark.parametrize("data", [b"[", b"[\xff]", b'[{"text": "a"},]'])
    def test_broken_list_is_refused_whole(self, cast: Cast, data: bytes) -> None:
        with pytest.raises(InvalidInput, match="not a JSON list"):
            import_feedback(data, by=cast.ada)
        assert not AuditEvent.objects.filter(verb="import_feedback").exists()


label_sets = st.dictionaries(st.sampled_from(SCHEMA.names), st.integers(0, 5), min_size=1).map(
    lambda picks: {
        name: SCHEMA[name].names[picks[name] % len(SCHEMA[name].names)] for name in SCHEMA.names if name in picks
    }
)
comments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
sides = st.tuples(label_sets | st.none(), label_sets | st.none()).filter(lambda pair: pair[0] != pair[1])


@pytest.mark.django_db
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(sides, comments), max_size=6))
def test_round_trips_exactly(rows: list[Any]) -> None:
    """What was imported is exported as it came, row by row, however the same texts repeat."""
    wanted = [
        row(
            f"text number {number // 2}",
            correct_labels=correct and SCHEMA.line(correct),
            incorrect_labels=incorrect and SCHEMA.line(incorrect),
            feedback=comment or None,
        )
        for number, ((correct, incorrect), comment) in enumerate(rows)
    ]
    Annotation.objects.all().delete()
    import_feedback(json.dumps(wanted).encode(), by=setup_cast().ada)
    assert export() == wanted
