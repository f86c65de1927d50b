"""Make the first bundle from two finished runs, and its model card.

    python -m training.jobs.starter --bert RUN_DIR [--llm RUN_DIR] [--suite FILE] --out releases/starter-2

Calibrates on the BERT run's `val` rows, measures on its `test` rows, and refuses to write a bundle that gets one of the
five statements wrong. The card is written beside the bundle as `<out>.md`, its plots to `<out>.plots` and the figures
to `<out>.json`: a bundle holds only what is loaded.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from classifier import api
from classifier.bundle import BundleParts, build_bundle
from classifier.errors import ClassifierError, GoldenCheckFailed
from classifier.hybrid import POLICIES, Calibration
from classifier.schema import load_schema
from training.corpus.public import OPEN_SETS
from training.corpus.rows import Row, RowError
from training.jobs.ablation import Given
from training.jobs.ablation_figures import source_of
from training.jobs.ablation_text import write_sections
from training.jobs.candidate import CalibrationPlan, Sets, ablate, calibrate_parts, judge
from training.jobs.config import ConfigError, read_json, write_json
from training.jobs.int8_gate import choose_int8
from training.jobs.onnx_gate import choose_runtime
from training.jobs.runtime import Job
from training.jobs.suite import read_suite
from training.plots import draw_ablation, write_plots

Arm = tuple[Path, tuple[str, str]]


def read_part(run_dir: Path) -> Arm:
    """Part folder and (name, SHA-256) of its base. Raises ConfigError."""
    path = run_dir / "manifest.json"
    if not path.is_file():
        raise ConfigError(f"{run_dir} holds no complete run: {path.name} is missing")
    made: dict[str, Any] = read_json(path)
    return run_dir / "part", (str(made["base"]), str(made["base_sha256"]))


def build_starter(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the bundle, its report and its card; returns the figures."""
    out: Path = args.out
    if out.exists():
        raise ConfigError(f"{out} exists already: a bundle is never changed, remove it first")
    job = Job(args.bert)
    bert, bert_base = read_part(args.bert)
    llm, llm_base = read_part(args.llm) if args.llm else (None, None)
    parts = BundleParts(
        name=out.name,
        policy=args.policy,
        calibration=Calibration.identity(load_schema()),
        bert=bert,
        bert_base=bert_base,
        llm=llm,
        llm_base=llm_base,
    )
    sets = Sets.read(job)
    parts = choose_int8(job, choose_runtime(job, parts, sets), sets, rows=args.calibration_rows)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    plan = CalibrationPlan(llm_rows=args.calibration_rows, abstain_target=args.abstain_target)
    fitted = calibrate_parts(job, parts, sets.calibration, plan)
    build_bundle(part, replace(parts, calibration=fitted))
    classifier = api.load(part)
    try:
        api.check_golden_or_raise(classifier)
    except GoldenCheckFailed:
        shutil.rmtree(part)
        raise
    started = time.monotonic()
    figures = judge(job, "evaluate", classifier, sets)
    ms = 1000 * (time.monotonic() - started) / (len(sets.test) + len(sets.learned))
    train = job.rows("train")
    suite = read_suite(args.suite) if args.suite else ()
    figures["ablation"] = ablate(job, classifier, part, Given(rows=sets.test, suite=suite, train=train))
    figures["trained_on"] = count_sources(train)
    part.rename(out)
    plots = draw_ablation(figures["ablation"])
    write_plots(out.with_name(f"{out.name}.plots"), plots)
    write_json(out.with_name(f"{out.name}.json"), figures)
    pictures = [(plot.title, f"{out.name}.plots/{plot.name}.svg") for plot in plots]
    card = write_card(parts, figures | {"sections": write_sections(figures["ablation"], pictures)}, args, ms)
    out.with_name(f"{out.name}.md").write_text(card, encoding="utf-8")
    return figures


def count_sources(rows: list[Row]) -> dict[str, int]:
    return dict(sorted(Counter(source_of(row) for row in rows).items()))


def write_card(parts: BundleParts, figures: dict[str, Any], args: argparse.Namespace, ms: float) -> str:
    test = figures["test"]
    table = "\n".join(
        f"| {name} | {test[name]['accuracy']:.3f} | {test[name]['macro_f1']:.3f} | {test[name]['rows']} |"
        for name in load_schema().names
    )
    missed, alarms = test["missed_risk"], test["false_alarm"]
    listed = "\n".join(f"| {_describe_source(name)} | {count} |" for name, count in figures["trained_on"].items())
    runs = [("BERT", args.bert, parts.bert_base)]
    if args.llm:
        runs.append(("LLM", args.llm, parts.llm_base))
    arms = "\n".join(_describe_arm(name, run, base) for name, run, base in runs)
    return f"""# {parts.name}

Says what a short text expresses, in four dimensions: emotion, sentiment, stress, risk. It routes texts to people who
look at them. **It says nothing about what a person will do, it diagnoses nothing, and it is not a crisis service.**

## Parts

{arms}

Rules of this version; policy `{parts.policy}`. Weights of the base models are not included; adapters and heads are.

## Data

| source | training rows |
|---|---|
{listed}

The bank was written and labelled for this project with both sides in view: plain and veiled distress, and harmless
idioms, jokes, news and fiction that look like it. Labels that a public set does not support stay unknown.

## Figures

On {test["rows"]} rows of the bank that were used neither for training nor for calibration:

| dimension | accuracy | macro F1 | rows |
|---|---|---|---|
{table}

Missed risk (medium or high answered none or low): {missed["hits"]} of {missed["total"]}.
False alarms (none or low answered medium or high): {alarms["hits"]} of {alarms["total"]}.
{ms:.0f} ms a text on average where it was made (CPU), texts in batches of 16.

## Ablation

{figures["sections"]}

## Limits

- The test rows come from the same hands as the training rows. Texts of other people, other places and other times will
  come out worse: measure on your own texts before you rely on it.
- English only. Short texts; of a long one the part with the highest risk speaks for the whole.
- Irony, quotation and private slang are often read wrongly, in both directions. Every miss that matters should come
  back as a correction.
- A text that nobody flagged is not thereby safe.
"""


def _describe_source(name: str) -> str:
    if name in OPEN_SETS:
        return f"{name}: {OPEN_SETS[name].citation} ({OPEN_SETS[name].licence})"
    return {"bank": "the bank of this project", "golden": "the five statements"}.get(name, name)


def _describe_arm(name: str, run_dir: Path, base: tuple[str, str] | None) -> str:
    made = read_json(run_dir / "manifest.json")
    options = made["options"]
    how = f"LoRA rank {options['lora_rank']}" if options["lora_rank"] else "all weights"
    pace = (
        f"{options['epochs']} epochs at most, batch {options['batch_size']}, learning rate {options['learning_rate']:g}"
    )
    return (
        f"- {name}: {base[0] if base else ''}, {how}, {pace}, seed {options['seed']}; "
        f"{made['steps']} steps in {made['seconds']:.0f} s."
    )


def main(argv: list[str] | None = None) -> int:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(prog="python -m training.jobs.starter", description="Make the first bundle.")
    parser.add_argument("--bert", type=Path, required=True, help="finished run dir of training.jobs.bert")
    parser.add_argument("--llm", type=Path, help="finished run dir of training.jobs.sft")
    parser.add_argument("--out", type=Path, required=True, help="the bundle to write; its folder name is its name")
    parser.add_argument("--policy", choices=POLICIES, default="cascade")
    parser.add_argument("--suite", type=Path, help="functional suite for the ablation")
    parser.add_argument(
        "--abstain-target", type=float, help="withhold risk labels so that this share of the rest is right"
    )
    parser.add_argument("--calibration-rows", type=int, default=0, help="held-out rows the LLM reads; 0 = all")
    args = parser.parse_args(argv)
    try:
        figures = build_starter(args)
    except (ConfigError, RowError, ClassifierError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in load_schema().names:
        found = figures["test"][name]
        print(f"{name}: accuracy {found['accuracy']:.3f}, macro F1 {found['macro_f1']:.3f}")
    for name in ("missed_risk", "false_alarm"):
        print(f"{name}: {figures['test'][name]['hits']} of {figures['test'][name]['total']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
