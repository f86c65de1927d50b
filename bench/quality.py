"""How good a release is: the ablation on the dev splits of all public sets at hand and on a functional suite.

    python -m bench.quality --data-dir DIR --suite FILE [--bundle releases/starter-2] [--limit 60] [--train FILE]
                            [--finetune dreaddit] [--option epochs=5 …]

DIR holds one folder for each set with `dev.jsonl` (`train.jsonl` too for `--finetune`). `--limit` rows of each set, the
same ones every time; 0 means all. The default takes about ten minutes on one core, nearly all of it the LLM's; scores
are kept under VAR_DIR, so that an interrupted or repeated run is quick. What a release has trained on stands in the
`.json` beside it, or is counted in `--train`, which the bag of words is fitted on.

`--finetune SET` also trains the release's BERT part on that set's train split and measures stress yes/no on its dev
split: F1 weighted by class, as the papers have it (Dreaddit, test split: BERT 80.7, MentalRoBERTa 81.8,
MentaLLaMA-13B 75.8). The last line is one JSON object; `bars` says which of them are met.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier import api
from classifier.base_models import base_models_dir, find_base, var_dir
from classifier.bundle import read_manifest
from classifier.schema import load_schema
from training.corpus.rows import Row, split_of, text_key, write_rows
from training.jobs.ablation import Given, make_report, print_progress, read_labelled, write_report
from training.jobs.ablation_figures import source_of
from training.jobs.config import JobConfig, parse_options
from training.jobs.suite import read_suite

ROOT = Path(__file__).resolve().parent.parent
SUITE_SOURCE = "suite"
MISSED_BAR, ALARM_BAR, FINETUNE_BAR = 0.03, 0.08, 81.0
FINETUNE_OPTIONS: Mapping[str, object] = {"epochs": 5, "batch_size": 16, "learning_rate": 3e-4, "max_tokens": 256}


def read_dev_sets(data_dir: Path, limit: int) -> list[Row]:
    """`limit` rows of each set by the order of their text keys, labelled ones alone."""
    rows: list[Row] = []
    for path in sorted(data_dir.glob("*/dev.jsonl")):
        found = sorted((row for row in read_labelled(path) if row.labels), key=lambda row: text_key(row.text))
        # A set's own rows may name another source.
        rows += [Row(row.id, row.text, row.labels, path.parent.name) for row in found[: limit or None]]
    return rows


def find_trained_on(bundle: Path, train: Sequence[Row]) -> list[str] | None:
    """The sources of the training rows; None where nothing tells."""
    beside = bundle.with_name(f"{bundle.name}.json")
    told = json.loads(beside.read_text(encoding="utf-8")).get("trained_on") if beside.is_file() else None
    if told is not None:
        return list(told)
    return sorted({source_of(row) for row in train}) or None


def measure(args: argparse.Namespace) -> dict[str, Any]:
    bundle: Path = args.bundle.resolve()
    suite = read_suite(args.suite)
    train = read_labelled(args.train) if args.train else []
    # The suite's own labels count as one more set, whatever its assertions forgive.
    rows = [*read_dev_sets(args.data_dir, args.limit), *(Row(c.id, c.text, c.labels, SUITE_SOURCE) for c in suite)]
    known = find_trained_on(bundle, train)
    given = Given(rows, suite, train, known)
    classifier = api.load(bundle, base_models=args.base_models)
    report = make_report(classifier, bundle, given, cache=var_dir() / "quality", report=print_progress)
    if args.out:
        write_report(args.out, report)
    print_sets(report, known)
    return summarise(report, 5 - len({item.text for item in api.check_golden(classifier)}))


def print_sets(report: Mapping[str, Any], known: Sequence[str] | None) -> None:
    """Every set's rows under the serving configuration; `*`: never trained on, `?`: nobody knows."""
    names = report["dimensions"]
    print(
        f"{'set':<26}{'rows':>6}" + "".join(f"{name:>11}" for name in names) + f"{'missed':>9}{'alarms':>9}{'AUROC':>8}"
    )
    for part in report["parts"][1:]:
        item = part["configurations"][report["hybrid"]]
        mark = " ?" if known is None else "" if part["trained_on"] else " *"
        f1 = [item["dimensions"][name]["macro_f1"]["value"] for name in names]
        shares = [item["missed_risk"]["share"], item["false_alarm"]["share"], (item["auroc"] or {}).get("value")]
        cells = [f"{show(value):>11}" for value in f1] + [
            f"{show(value):>{w}}" for value, w in zip(shares, (9, 9, 8), strict=True)
        ]
        print(f"{part['name'] + mark:<26}{part['rows']:>6}{''.join(cells)}")
    print("macro-F1 by dimension; * never trained on" + ("; ? not known, name --train" if known is None else ""))
    for line in report["remarks"]:
        print(line)


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def summarise(report: Mapping[str, Any], golden: int) -> dict[str, Any]:
    found = report["suite"]["configurations"][report["hybrid"]]
    missed, alarms = found["missed_risk"]["share"], found["false_alarm"]["share"]
    return {
        "release": report["bundle"]["name"],
        "rows": report["parts"][0]["rows"],
        "missed_risk": missed,
        "false_alarm": alarms,
        "hybrid_minus_best": report["hybrid_minus_best"],
        "golden": golden,
        "selective_risk": report["parts"][0]["configurations"][report["hybrid"]]["curve"]["coverage_at"],
        "bars": {
            "missed_risk": missed <= MISSED_BAR,
            "false_alarm": alarms <= ALARM_BAR,
            "hybrid": all(item["holds"] for item in report["hybrid_minus_best"].values()),
            "golden": golden == len(api.GOLDEN_STATEMENTS),
        },
    }


def finetune(args: argparse.Namespace) -> dict[str, Any]:
    """Train the bundle's BERT part on the set's train split by the ordinary job, and measure it on the dev split."""
    bundle: Path = args.bundle.resolve()
    folder = args.data_dir / args.finetune
    rows = [row for row in read_labelled(folder / "train.jsonl") if "stress" in row.labels]
    run_dir = Path(tempfile.mkdtemp(prefix="heed-finetune-"))
    (run_dir / "data").mkdir()
    # Early stopping looks at a tenth of the train split; the dev split is never seen.
    is_val = [split_of(text_key(row.text)) == "val" for row in rows]
    write_rows(run_dir / "data" / "train.jsonl", (row for row, held in zip(rows, is_val, strict=True) if not held))
    write_rows(run_dir / "data" / "val.jsonl", (row for row, held in zip(rows, is_val, strict=True) if held))
    options = {**FINETUNE_OPTIONS, **dict(pair.partition("=")[::2] for pair in args.option)}
    JobConfig(
        kind="bert",
        options=parse_options("bert", options),
        serving_bundle=bundle,
        base_models=args.base_models,
        init_from=bundle / "bert",
    ).write(run_dir)
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "training.jobs.bert", "--run-dir", str(run_dir)], cwd=ROOT, check=True)
    minutes = (time.monotonic() - started) / 60
    figures = measure_stress(bundle, run_dir / "part", args, read_labelled(folder / "dev.jsonl"))
    before = measure_stress(bundle, bundle / "bert", args, read_labelled(folder / "dev.jsonl"))
    name = args.finetune
    print(f"{name}: weighted F1 {figures['weighted']:.1f} after {minutes:.1f} min, {before['weighted']:.1f} before")
    return {
        f"{name}_f1": figures["weighted"],
        f"{name}_f1_stress": figures["stress"],
        f"{name}_f1_before": before["weighted"],
        f"{name}_minutes": round(minutes, 1),
    }


def measure_stress(bundle: Path, part: Path, args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, float]:
    """F1 in percent of P(stress >= medium) >= 1/2: of the class stress, and weighted by class."""
    from classifier.bert import BertArm

    manifest = read_manifest(bundle)
    assert manifest.bert is not None
    arm = BertArm.load(part, find_base(manifest.bert.base, args.base_models), load_schema())
    known = [row for row in rows if "stress" in row.labels]
    truth = np.array([row.labels["stress"] != "low" for row in known])
    answers = np.array(
        [found.probabilities["stress"]["low"] <= 0.5 for found in arm.score([row.text for row in known])]
    )
    f1 = [_f1(truth == value, answers == value) for value in (False, True)]
    weighted = float(np.average(f1, weights=[(~truth).sum(), truth.sum()]))
    return {"weighted": round(100 * weighted, 1), "stress": round(100 * f1[1], 1)}


def _f1(truth: Any, answers: Any) -> float:
    return float(2 * (truth & answers).sum() / max(truth.sum() + answers.sum(), 1))


def main() -> None:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "releases" / "starter-2")
    parser.add_argument("--base-models", type=Path, default=base_models_dir())
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--suite", type=Path, help="left out: only --finetune is done")
    parser.add_argument("--train", type=Path, help="the release's training rows, for the bag of words")
    parser.add_argument("--limit", type=int, default=60, help="rows of each set; 0 = all")
    parser.add_argument("--out", type=Path, help="folder for the whole report and its plots")
    parser.add_argument("--finetune", metavar="SET")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the fine-tuning job")
    args = parser.parse_args()
    if not args.suite and not args.finetune:
        parser.error("name --suite, --finetune or both")
    started = time.monotonic()
    figures: dict[str, Any] = {"bench": "quality", "bars": {}}
    if args.suite:
        figures |= measure(args)
        figures["minutes"] = round((time.monotonic() - started) / 60, 1)
    if args.finetune:
        figures |= finetune(args)
        figures["bars"]["finetune"] = figures[f"{args.finetune}_f1"] >= FINETUNE_BAR
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
