"""What each part of a bundle contributes: every row scored once by each arm, every configuration derived from that.

    python -m training.jobs.ablation --bundle DIR --rows FILE… [--suite FILE] [--train FILE] --out DIR [--cache DIR]

Writes OUT/report.json, OUT/report.md and OUT/plots/*.svg. Rows are those of training.corpus.rows, or of a public set
(`mapped` labels). With `--cache` an interrupted run goes on where it was. With `--train` the report carries a bag of
words fitted on these rows: what cannot beat it is said so.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classifier import api
from classifier.bundle import manifest_sha256
from classifier.errors import ClassifierError
from classifier.hybrid import Calibration, decide_labels, needs_llm
from classifier.rules.engine import RuleVerdict
from classifier.schema import load_schema
from classifier.types import ArmScores, Labels, Probabilities
from training.corpus.public import EITHER_NEGATIVE
from training.corpus.rows import Row, RowError, iter_jsonl, text_key
from training.jobs.ablation_figures import Compared, encode_answers, measure_all, source_of
from training.jobs.ablation_text import list_remarks, write_markdown
from training.jobs.arm_scores import Report, Scored, list_arms, score_texts
from training.jobs.bag_of_words import BagOfWords
from training.jobs.config import ConfigError, write_json
from training.jobs.conflicts import Judged, report_conflicts
from training.jobs.measures import BINS, BOOTSTRAP, SEED, encode_truth
from training.jobs.runtime import bind_to_supervisor
from training.jobs.suite import Case, read_suite, score_suite
from training.plots import draw_ablation, write_plots

FORMAT = 1
RULES, BERT, LLM, BOTH_ARMS = "rules", "bert", "llm", "llm_bert"
ALL_WEIGHTED, ALL_CASCADE, BAG = "all_weighted", "all_cascade", "bag_of_words"
TITLES: Mapping[str, str] = {
    RULES: "rules only",
    BERT: "BERT only",
    LLM: "LLM only",
    BOTH_ARMS: "LLM + BERT",
    ALL_WEIGHTED: "all, weighted",
    ALL_CASCADE: "all, cascade",
    BAG: "bag of words",
}
QUIET: Labels = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
"""What the rules alone say where none of them speaks."""


@dataclass(frozen=True, slots=True)
class Given:
    """What an ablation is made of. `train`: the rows the release was trained on, where they are at hand."""

    rows: Sequence[Row]
    suite: Sequence[Case] = ()
    train: Sequence[Row] = ()
    trained_on: Sequence[str] | None = None
    """Sources the release has seen rows of; None: as far as `train` tells."""
    times: int = BOOTSTRAP


@dataclass(frozen=True, slots=True)
class Outcome:
    """Labels are empty for a text that stays unscored; probabilities are None where a configuration has none."""

    labels: Labels
    probabilities: Probabilities | None


def make_report(
    classifier: api.Classifier, bundle: Path, given: Given, *, cache: Path | None = None, report: Report | None = None
) -> dict[str, Any]:
    rows = list_rows(given)
    scored = score_texts(classifier, [row.text for row in rows], cache=cache, report=report)
    bag = BagOfWords(given.train) if given.train else None
    answers = answer_rows(classifier, rows, scored, bag)
    made = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": {
            "name": classifier.manifest.name,
            "manifest_sha256": manifest_sha256(bundle),
            "policy": classifier.manifest.policy,
        },
        "bag_of_words_rows": bag.rows if bag else 0,
        "abstain": report_abstain(classifier, given.rows, scored[: len(given.rows)]),
        **describe_answers(given, answers, hybrid_name(classifier, answers)),
    }
    return made | {"remarks": list_remarks(made)}


def list_rows(given: Given) -> list[Row]:
    """The labelled rows, then those of the suite with their functionality as source."""
    return [*given.rows, *(Row(case.id, case.text, case.labels, case.functionality) for case in given.suite)]


def describe_answers(given: Given, answers: Mapping[str, Sequence[Outcome]], hybrid: str) -> dict[str, Any]:
    """The figures; `answers` has an outcome for each of `list_rows`."""
    middle = len(given.rows)
    encoded = [
        encode_answers(name, [(item.labels, item.probabilities) for item in found[:middle]])
        for name, found in answers.items()
    ]
    compared = Compared(hybrid, singles=[name for name in (RULES, BERT, LLM) if name in answers], baseline=BAG)
    judged = judge_conflicts(list_rows(given), answers, hybrid) if BOTH_ARMS in answers else None
    return {
        "settings": {"bootstrap": given.times, "seed": SEED, "bins": BINS, "level": 0.95},
        "configurations": [{"name": name, "title": TITLES[name]} for name in answers],
        "dimensions": list(load_schema().names),
        "hybrid": hybrid,
        **measure_all(given.rows, encoded, compared, trained_on(given), times=given.times),
        "suite": report_suite(given.suite, {name: found[middle:] for name, found in answers.items()}),
        "conflicts": report_conflicts(judged) if judged is not None else None,
    }


def trained_on(given: Given) -> set[str]:
    return set(given.trained_on if given.trained_on is not None else (source_of(row) for row in given.train))


def hybrid_name(classifier: api.Classifier, answers: Mapping[str, object]) -> str:
    """The configuration that serves."""
    return ALL_CASCADE if classifier.manifest.policy == "cascade" and ALL_CASCADE in answers else ALL_WEIGHTED


def answer_rows(
    classifier: api.Classifier, rows: Sequence[Row], scored: Sequence[Scored], bag: BagOfWords | None
) -> dict[str, list[Outcome]]:
    """Configuration -> an outcome for each row, in the order of TITLES. A bundle of one arm has fewer."""
    plain = replace(classifier.calibration, abstain=None)
    arms = list_arms(classifier)
    names = [RULES, *arms, ALL_WEIGHTED] if len(arms) < 2 else [name for name in TITLES if name != BAG]
    answers = {name: [decide_by(name, item, plain) for item in scored] for name in names}
    if bag is not None:
        found = bag.score([row.text for row in rows])
        answers[BAG] = [Outcome({name: _top(row) for name, row in item.items()}, item) for item in found]
    return answers


def decide_by(name: str, item: Scored, calibration: Calibration) -> Outcome:
    """What a bundle of these parts alone would answer, with the calibration of the whole."""
    schema = load_schema()
    if name == RULES:
        quiet = {"bert": ArmScores("bert", _certain(QUIET), 0.0)}
        return Outcome(decide_labels(quiet, item.verdict, Calibration.identity(schema), schema).labels, None)
    verdict = item.verdict if name in (ALL_WEIGHTED, ALL_CASCADE) else RuleVerdict()
    arms = dict(item.arms)
    if name in (BERT, LLM):
        arms = {arm: score for arm, score in arms.items() if arm == name}
    if name == ALL_CASCADE and not needs_llm(arms.get("bert"), item.verdict, calibration, "cascade", schema):
        arms.pop("llm", None)
    found = decide_labels(arms, verdict, calibration, schema)
    return Outcome(found.labels, found.probabilities)


def _certain(labels: Labels) -> dict[str, dict[str, float]]:
    dimensions = load_schema().dimensions
    return {item.name: {value: float(value == labels[item.name]) for value in item.names} for item in dimensions}


def _top(row: Mapping[str, float]) -> str:
    return max(row, key=row.__getitem__)


def report_suite(cases: Sequence[Case], answers: Mapping[str, Sequence[Outcome]]) -> dict[str, Any] | None:
    if not cases:
        return None
    # A bag of words whose training rows do not know every dimension cannot be held against a suite.
    full = {0, len(load_schema().names)}
    whole = {name: found for name, found in answers.items() if {len(item.labels) for item in found} <= full}
    return {
        "rows": len(cases),
        "configurations": {name: score_suite(cases, [item.labels for item in found]) for name, found in whole.items()},
    }


def judge_conflicts(rows: Sequence[Row], answers: Mapping[str, Sequence[Outcome]], hybrid: str) -> list[Judged]:
    return [
        Judged(row.id, row.text, source_of(row), row.labels, bert.labels, llm.labels, whole.labels)
        for row, bert, llm, whole in zip(rows, answers[BERT], answers[LLM], answers[hybrid], strict=True)
    ]


def report_abstain(classifier: api.Classifier, rows: Sequence[Row], scored: Sequence[Scored]) -> dict[str, Any] | None:
    """What the bundle's abstain option does to these rows; None where it is off."""
    abstain = classifier.calibration.abstain
    if abstain is None:
        return None
    policy = ALL_CASCADE if classifier.manifest.policy == "cascade" else ALL_WEIGHTED
    found = [decide_by(policy, item, classifier.calibration) for item in scored]
    risk = load_schema()["risk"]
    places, allowed = encode_truth([row.labels.get("risk") for row in rows], risk)
    right = [
        row[risk.index(found[place].labels["risk"])]
        for place, row in zip(places, allowed, strict=True)
        if found[place].labels
    ]
    return {
        "target": abstain.target,
        "limit": abstain.limit,
        "expected_coverage": abstain.coverage,
        "coverage": round(sum(bool(item.labels) for item in found) / len(found), 4) if found else None,
        "accuracy": round(sum(right) / len(right), 4) if right else None,
    }


def read_labelled(path: Path) -> list[Row]:
    """Rows of ours, or of a public set, whose labels stand under `mapped`. Raises RowError."""
    rows = []
    for where, raw in iter_jsonl(path):
        if "mapped" not in raw:
            rows.append(Row.from_dict(raw, where))
            continue
        labels = dict(raw["mapped"])
        if "emotion" in labels:
            labels["emotion"] = EITHER_NEGATIVE.get(labels["emotion"], labels["emotion"])
        source = str(raw.get("source") or path.parent.name)
        found = {"id": f"{source}-{text_key(str(raw.get('text')))[:16]}", "text": raw.get("text"), "source": source}
        rows.append(Row.from_dict(found | {"labels": labels}, where))
    return rows


def write_report(out: Path, report: Mapping[str, Any]) -> None:
    """report.json last: its existence means that the rest is there."""
    out.mkdir(parents=True, exist_ok=True)
    plots = draw_ablation(report)
    write_plots(out / "plots", plots)
    pictures = [(plot.title, f"plots/{plot.name}.svg") for plot in plots]
    (out / "report.md").write_text(write_markdown(report, pictures), encoding="utf-8")
    write_json(out / "report.json", report)


def main(argv: list[str] | None = None) -> int:
    bind_to_supervisor()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(prog="python -m training.jobs.ablation", description="What each part contributes.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="labelled rows that it was not trained on")
    parser.add_argument("--suite", type=Path, help="functional suite: id, functionality, text, labels, must")
    parser.add_argument("--train", type=Path, help="the rows it was trained on, for the bag of words")
    parser.add_argument("--base-models", type=Path)
    parser.add_argument("--cache", type=Path, help="folder that keeps the arms' scores, so that a long run can go on")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        given = Given(
            rows=[row for path in args.rows for row in read_labelled(path)],
            suite=read_suite(args.suite) if args.suite else (),
            train=read_labelled(args.train) if args.train else (),
        )
        classifier = api.load(args.bundle, base_models=args.base_models)
        write_report(args.out, make_report(classifier, args.bundle, given, cache=args.cache, report=print_progress))
    except (ConfigError, RowError, ClassifierError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out / 'report.json'} is written")
    return 0


def print_progress(stage: str, done: int, total: int) -> None:
    print(f"{stage}: {done} of {total}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
