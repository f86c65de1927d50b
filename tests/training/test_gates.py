"""Figures and gates by hand-made answers."""

from pathlib import Path
from typing import Any

import pytest

from classifier.schema import load_schema
from training.corpus.rows import Row, write_rows
from training.jobs.candidate import Sets
from training.jobs.figures import false_alarm, macro_f1, missed_risk, score_labels
from training.jobs.gates import compare
from training.jobs.runtime import Job

RISK = load_schema()["risk"]


def test_missed_risk_and_false_alarms_are_counted_at_medium() -> None:
    truth = ["high", "medium", "high", "low", "none", "none"]
    answers = ["medium", "low", "none", "medium", "low", "none"]
    assert missed_risk(truth, answers, RISK).as_dict() == {"hits": 2, "total": 3, "share": pytest.approx(2 / 3)}
    assert false_alarm(truth, answers, RISK).as_dict() == {"hits": 1, "total": 3, "share": pytest.approx(1 / 3)}


def test_macro_f1_against_a_hand_computed_value() -> None:
    # a: 1 hit of 2, answered once -> 2/3; b: 1 hit of 1, answered twice -> 2/3.
    assert macro_f1(["a", "a", "b"], ["a", "b", "b"]) == pytest.approx(2 / 3)
    assert macro_f1([], []) is None


def test_a_slot_without_one_true_value_is_not_counted() -> None:
    truths: list[Any] = [{"risk": "low"}, {"risk": "low|high"}, {"risk": {"low": 0.5, "high": 0.5}}, {}]
    figures: Any = score_labels(truths, [{"risk": "low"}] * 4, load_schema())
    assert figures["risk"] == {"accuracy": 1.0, "macro_f1": 1.0, "rows": 1}
    assert figures["emotion"]["accuracy"] is None
    assert figures["missed_risk"]["share"] is None


def figures(*, missed: float = 0.1, alarms: float = 0.1, f1: float = 0.8, feedback: float = 0.8, rows: int = 50) -> Any:
    def part(accuracy: float, count: int) -> dict[str, Any]:
        dimensions = {name: {"accuracy": accuracy, "macro_f1": f1, "rows": count} for name in load_schema().names}
        return {**dimensions, "missed_risk": {"share": missed}, "false_alarm": {"share": alarms}, "rows": count}

    return {"test": part(0.8, 100), "test_feedback": part(feedback, rows), "learned_feedback": part(feedback, rows)}


def failed(candidate: Any, baseline: Any) -> set[str]:
    return {gate.name for gate in compare(candidate, baseline) if not gate.passed}


def test_an_equal_candidate_passes_every_gate() -> None:
    gates = compare(figures(), figures())
    assert len(gates) == 5
    assert all(gate.passed for gate in gates)


@pytest.mark.parametrize(
    ("worse", "gates"),
    [
        ({"missed": 0.12}, {"missed risk"}),
        ({"alarms": 0.14}, {"false alarms"}),
        ({"f1": 0.77}, {"macro F1"}),
        ({"feedback": 0.79}, {"held-out corrections", "learned corrections"}),
    ],
)
def test_each_worse_figure_fails_its_own_gate(worse: dict[str, float], gates: set[str]) -> None:
    assert failed(figures(**worse), figures()) == gates  # type: ignore[arg-type]


def test_a_handful_of_corrections_makes_no_gate() -> None:
    assert failed(figures(feedback=0.0, rows=4), figures(rows=4)) == set()


def test_a_candidate_is_judged_on_corrections_first_and_on_a_capped_number_of_rows(tmp_path: Path) -> None:
    rows = [Row(f"{n:02}", f"text {n}", {"risk": "none"}, "feedback" if n > 7 else "bank:F01") for n in range(10)]
    (tmp_path / "data").mkdir()
    for split in ("train", "val", "test"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    (tmp_path / "config.json").write_text('{"kind": "bert"}', encoding="utf-8")
    job = Job(tmp_path)
    assert [row.id for row in Sets.read(job, 4).test] == ["08", "09", "00", "01"]
    assert len(Sets.read(job).test) == 10
