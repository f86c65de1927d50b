"""An ablation in words and tables: for pages, report.md and model cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.jobs.ablation_figures import UNCLEAR, WORSE
from training.jobs.conflicts import DIMENSIONS as CONFLICTS

Report = Mapping[str, Any]
Picture = tuple[str, str]
"""Title, and path relative to the text."""
NONE = "–"
MAX_PAIRS = 10


@dataclass(frozen=True, slots=True)
class Table:
    """The first column names the row. `is_long`: a list to look things up in, folded away or left out."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    is_long: bool = False


def write_markdown(report: Report, pictures: Sequence[Picture]) -> str:
    return f"# Ablation of {report['bundle']['name']}\n\n{write_sections(report, pictures)}\n"


def write_sections(report: Report, pictures: Sequence[Picture]) -> str:
    """As a part of another text: headings of the third level."""
    return "\n\n".join(
        [
            say_method(report),
            "\n".join(f"- {line}" for line in report["remarks"]),
            *(_as_markdown(table) for table in list_tables(report) if not table.is_long),
            *(f"![{title}]({path})" for title, path in pictures),
        ]
    )


def _as_markdown(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.title}\n\n{drawn}" + (f"\n\n{table.note}" if table.note else "")


def say_method(report: Report) -> str:
    return (
        "Each row was scored once by each part; “all” is what the rules, the LLM and BERT say together. Intervals are "
        f"95 %: of macro-F1 by {report['settings']['bootstrap']} bootstrap resamples, of shares by Wilson's formula."
    )


def list_remarks(report: Report) -> list[str]:
    """What is to be said of the figures on all rows, in sentences."""
    return [*_remark_baseline(report), *_remark_hybrid(report), *_remark_abstain(report)]


def _remark_baseline(report: Report) -> list[str]:
    """What the bag of words is not beaten by."""
    found = report["against_bag_of_words"]
    if found is None:
        return ["No training rows were at hand, so no bag of words stands beside these figures."]
    said = [
        f"“{title}” does not clearly beat the bag of words in {', '.join(weak)}."
        for title, row in in_order(report, found)
        if (weak := [name for name in report["dimensions"] if row[name]["verdict"] in (UNCLEAR, WORSE)])
    ]
    return said or ["Everything clearly beats the bag of words."]


def _remark_hybrid(report: Report) -> list[str]:
    parts = [
        f"{name} {item['value']:+.3f} ({item['low']:+.3f} to {item['high']:+.3f}; {title_of(report, item['best'])})"
        for name in report["dimensions"]
        if (item := report["hybrid_minus_best"][name])["value"] is not None
    ]
    if not parts:
        return []
    return [f"Macro-F1 of “{title_of(report, report['hybrid'])}” minus the best single part: {', '.join(parts)}."]


def _remark_abstain(report: Report) -> list[str]:
    found = report["abstain"]
    if found is None or found["coverage"] is None:
        return []
    right = f", {100 * found['accuracy']:.1f} % of them right" if found["accuracy"] is not None else ""
    kept = f"{100 * found['coverage']:.0f} % of these rows keep their answer{right}"
    return [
        f"Abstain is on: below a confidence of {found['limit']:.2f} the risk goes to a human unscored. {kept}; "
        f"the target is {100 * found['target']:.0f} %."
    ]


def list_tables(report: Report) -> list[Table]:
    whole = report["parts"][0]
    tables = [table_of_f1(report, whole), table_of_risk(report, whole)]
    if len(report["parts"]) > 2:
        tables.append(table_of_sources(report))
    if report["suite"]:
        tables += [table_of_suite(report), table_of_functionalities(report)]
    for name in CONFLICTS if report["conflicts"] else ():
        found = report["conflicts"][name]
        tables += [
            table_of_pairs(name, found),
            table_of_conflict_sources(name, found),
            table_of_conflict_rows(name, found),
        ]
    return tables


def table_of_f1(report: Report, part: Mapping[str, Any]) -> Table:
    rows = [
        [title, *(say_estimate(item["dimensions"][name]["macro_f1"]) for name in report["dimensions"])]
        for title, item in in_order(report, part["configurations"])
    ]
    return Table(f"Macro-F1 on all {part['rows']} rows", ["configuration", *report["dimensions"]], rows)


def table_of_risk(report: Report, part: Mapping[str, Any]) -> Table:
    rows = []
    for title, item in in_order(report, part["configurations"]):
        numbers = [say_number(item["dimensions"]["risk"][key]) for key in ("ece", "brier", "selective_area")]
        rows.append([title, *_say_risk(item), _auroc(item), *numbers])
    head = ["configuration", "missed risk", "false alarms", "AUROC", "ECE", "Brier", "selective area"]
    note = (
        "Missed: medium or high answered none or low; false alarm: the other way round. AUROC is that of "
        "P(risk ≥ medium); ECE in 15 bins of equal width; selective area: mean accuracy over all coverages, the surest "
        "answers first."
    )
    return Table(f"Risk on all {part['rows']} rows", head, rows, note)


def table_of_sources(report: Report) -> Table:
    """The hybrid on each source."""
    rows = []
    for part in report["parts"][1:]:
        item = part["configurations"][report["hybrid"]]
        f1 = [say_estimate(item["dimensions"][name]["macro_f1"]) for name in report["dimensions"]]
        seen = "yes" if part["trained_on"] else "never"
        rows.append([part["name"], str(part["rows"]), seen, *f1, *_say_risk(item), _auroc(item)])
    head = ["source", "rows", "seen", *report["dimensions"], "missed risk", "false alarms", "AUROC"]
    note = (
        "Macro-F1 of each dimension. Where a set's risk labels admit values on both sides of the line (“low or medium "
        "or high”), its risk is measured by ranking alone: AUROC of P(risk ≥ medium)."
    )
    return Table(f"By source, {title_of(report, report['hybrid'])}", head, rows, note)


def _say_risk(item: Mapping[str, Any]) -> list[str]:
    return [say_rate(item["missed_risk"]), say_rate(item["false_alarm"])]


def _auroc(item: Mapping[str, Any]) -> str:
    return say_number((item["auroc"] or {}).get("value"))


def table_of_suite(report: Report) -> Table:
    found = in_order(report, report["suite"]["configurations"])
    rows = [[title, say_rate(item["passed"]), *_say_risk(item)] for title, item in found]
    head = ["configuration", "passed", "missed risk", "false alarms"]
    return Table(f"Functional suite, {report['suite']['rows']} rows", head, rows)


def table_of_functionalities(report: Report) -> Table:
    found = in_order(report, report["suite"]["configurations"])
    rates = [item["functionalities"] for _, item in found]
    rows = [
        [name.replace("_", " "), *(f"{row[name]['hits']}/{row[name]['total']}" for row in rates)]
        for name in sorted(rates[0])
    ]
    return Table("Assertions passed by functionality", ["functionality", *(title for title, _ in found)], rows)


RIGHT = {
    "bert_right": "BERT right",
    "llm_right": "LLM right",
    "both_right": "both",
    "neither": "neither",
    "unknown": "unknown",
}


def table_of_pairs(name: str, found: Mapping[str, Any]) -> Table:
    rows = [
        [f"{pair['bert']} / {pair['llm']}".replace("_", " "), str(pair["count"]), *(str(pair[key]) for key in RIGHT)]
        for pair in found["pairs"][:MAX_PAIRS]
    ]
    note = f"{found['differ']} of {found['rows']} rows; the most frequent pairs."
    return Table(f"Where the arms disagree about {name}", ["BERT / LLM says", "rows", *RIGHT.values()], rows, note)


def table_of_conflict_sources(name: str, found: Mapping[str, Any]) -> Table:
    rows = [
        [item["source"], f"{item['differ']} of {item['rows']}", *(str(item[key]) for key in RIGHT)]
        for item in found["sources"]
    ]
    head = ["source or functionality", "disagree", *RIGHT.values()]
    return Table(f"Disagreement about {name} by source", head, rows, is_long=True)


def table_of_conflict_rows(name: str, found: Mapping[str, Any]) -> Table:
    rows = [
        [
            row["id"],
            row["hash"],
            row["source"],
            *(_say_label(row[key]) for key in ("bert", "llm", "whole", "truth")),
            row["right"],
        ]
        for row in found["named_rows"]
    ]
    head = ["row", "hash", "source", "BERT", "LLM", "all", "truth", "right"]
    return Table(
        f"Rows the arms disagree on about {name}", head, rows, "By id and hash, without their text.", is_long=True
    )


def _say_label(label: object) -> str:
    if isinstance(label, Mapping):
        return ", ".join(f"{value} {share:.2f}" for value, share in label.items())
    return str(label or NONE).replace("|", " or ").replace("_", " ")


def in_order(report: Report, found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Title and figures of each configuration. JSON objects forget their order; the report's list keeps it."""
    return [(item["title"], found[item["name"]]) for item in report["configurations"] if item["name"] in found]


def title_of(report: Report, name: str) -> str:
    return next(str(item["title"]) for item in report["configurations"] if item["name"] == name)


def say_estimate(item: Mapping[str, Any]) -> str:
    return NONE if item["value"] is None else f"{item['value']:.2f} ({item['low']:.2f}–{item['high']:.2f})"


def say_rate(item: Mapping[str, Any]) -> str:
    return NONE if not item["total"] else f"{100 * item['share']:.1f} % of {item['total']}"


def say_number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
