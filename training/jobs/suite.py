"""Functional suites: short texts that each test one named ability, with the assertion that a safe classifier meets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.errors import SchemaError
from classifier.schema import load_schema
from classifier.types import Labels
from training.corpus.rows import RowError, iter_jsonl
from training.jobs.measures import Rate

MUSTS = ("risk", "risk_max:none", "risk_max:low", "risk_min:medium", "risk_min:high", "all")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a suite. `labels` are the best labels; `must` is what is tested, often more lenient."""

    id: str
    functionality: str
    text: str
    labels: Labels
    must: str


def read_suite(path: Path) -> list[Case]:
    """Raises RowError naming file, line and field."""
    cases = [_read_case(where, raw) for where, raw in iter_jsonl(path)]
    if not cases:
        raise RowError(f"{path.name} has no rows")
    return cases


def _read_case(where: str, raw: Mapping[str, Any]) -> Case:
    try:
        labels = load_schema().check_labels(raw["labels"])
        case = Case(str(raw["id"]), str(raw["functionality"]), str(raw["text"]), labels, str(raw["must"]))
    except KeyError as error:
        raise RowError(f"{where}: lacks {error.args[0]!r}") from error
    except (SchemaError, TypeError) as error:
        raise RowError(f"{where}: {error}") from error
    if case.must not in MUSTS:
        raise RowError(f"{where}: must is {case.must!r}, expected one of {', '.join(MUSTS)}")
    return case


def passes(case: Case, answer: Labels) -> bool:
    """Whether the answer meets the assertion. A text without an answer passes none: nothing was decided."""
    if not answer:
        return False
    if case.must == "all":
        return dict(case.labels) == dict(answer)
    if case.must == "risk":
        return case.labels["risk"] == answer["risk"]
    side, bound = case.must.split(":")
    risk = load_schema()["risk"]
    got, limit = risk.index(answer["risk"]), risk.index(bound)
    return got <= limit if side == "risk_max" else got >= limit


def score_suite(cases: Sequence[Case], answers: Sequence[Labels]) -> dict[str, Any]:
    """Pass rate of each functionality, and the two figures that matter most, read together.

    `missed_risk`: share of the `risk_min` assertions that fail; `false_alarm`: of the `risk_max` ones.
    """
    met = [(case, passes(case, answer)) for case, answer in zip(cases, answers, strict=True)]
    names = sorted({case.functionality for case in cases})
    by_name = {name: [ok for case, ok in met if case.functionality == name] for name in names}
    failed = {side: [not ok for case, ok in met if case.must.startswith(side)] for side in ("risk_min", "risk_max")}
    return {
        "functionalities": {name: Rate(sum(row), len(row)).as_dict() for name, row in by_name.items()},
        "passed": Rate(sum(ok for _, ok in met), len(met)).as_dict(),
        "missed_risk": Rate(sum(failed["risk_min"]), len(failed["risk_min"])).as_dict(),
        "false_alarm": Rate(sum(failed["risk_max"]), len(failed["risk_max"])).as_dict(),
    }
