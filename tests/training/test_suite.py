"""The assertions of a functional suite."""

import json
from pathlib import Path

import pytest

from training.corpus.rows import RowError
from training.jobs.suite import Case, passes, read_suite, score_suite

CALM = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
RISKY = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}


def case(must: str, labels: dict[str, str] = CALM, functionality: str = "F01") -> Case:
    return Case("c1", functionality, "a text", labels, must)


@pytest.mark.parametrize(
    ("must", "labels", "risk", "expected"),
    [
        ("risk_max:none", CALM, "none", True),
        ("risk_max:none", CALM, "low", False),
        ("risk_max:low", CALM, "low", True),
        ("risk_max:low", CALM, "medium", False),
        ("risk_min:medium", RISKY, "medium", True),
        ("risk_min:medium", RISKY, "low", False),
        ("risk_min:high", RISKY, "high", True),
        ("risk_min:high", RISKY, "medium", False),
        ("risk", RISKY, "high", True),
        ("risk", RISKY, "medium", False),
        ("all", RISKY, "high", True),
        ("all", RISKY | {"stress": "low"}, "high", False),
    ],
)
def test_each_assertion(must: str, labels: dict[str, str], risk: str, expected: bool) -> None:
    answer = (CALM if labels == CALM else RISKY) | {"risk": risk}
    assert passes(case(must, labels), answer) is expected


def test_a_text_without_an_answer_passes_nothing() -> None:
    assert not passes(case("risk_max:low"), {})
    assert not passes(case("all"), {})


def test_the_two_figures_count_their_own_assertions() -> None:
    cases = [
        case("risk_min:medium", RISKY, "F06"),
        case("risk_min:high", RISKY, "F06"),
        case("risk_max:low"),
        case("all"),
    ]
    found = score_suite(cases, [CALM, RISKY, RISKY, CALM])
    assert (found["missed_risk"]["hits"], found["missed_risk"]["total"]) == (1, 2)
    assert (found["false_alarm"]["hits"], found["false_alarm"]["total"]) == (1, 1)
    assert {name: (rate["hits"], rate["total"]) for name, rate in found["functionalities"].items()} == {
        "F01": (1, 2),
        "F06": (1, 2),
    }


def test_a_bad_row_is_named_without_its_text(tmp_path: Path) -> None:
    row = {"id": "a", "functionality": "F01", "text": "a private text", "labels": CALM, "must": "risk_max:none"}
    path = tmp_path / "suite.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | {'must': 'risk_max:often'})}\n", encoding="utf-8")
    with pytest.raises(RowError, match=r"suite\.jsonl:2: must is 'risk_max:often'") as caught:
        read_suite(path)
    assert "private" not in str(caught.value)
