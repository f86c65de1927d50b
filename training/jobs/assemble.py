"""Put a trained arm into the serving bundle's place beside its other parts, and judge the result.

    python -m training.jobs.assemble --run-dir DIR [--abstain-target SHARE]

Reads DIR/manifest.json, DIR/part and the serving bundle that DIR/config.json names; writes DIR/bundle and, last,
DIR/report.json with figures of candidate and baseline on the same held-out rows, the gates between them, and the
candidate's ablation. The abstain target is the serving bundle's unless one is given.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from classifier import api
from classifier.bundle import BundleParts, build_bundle, manifest_sha256
from classifier.rules.engine import RuleSet
from classifier.schema import load_schema
from training.jobs.ablation import Given
from training.jobs.candidate import (
    CalibrationPlan,
    Sets,
    ablate,
    answer_rows,
    calibrate_parts,
    golden_gate,
    judge_answers,
)
from training.jobs.config import ConfigError, read_json, write_json
from training.jobs.gates import compare
from training.jobs.int8_gate import choose_int8
from training.jobs.onnx_gate import choose_runtime
from training.jobs.runtime import Job, run_job
from training.jobs.samples import pick_samples


def main(job: Job, abstain_target: float | None = None) -> None:
    report = job.run_dir / "report.json"
    if report.is_file():
        return
    serving = job.config.serving_bundle
    if serving is None:
        raise ConfigError("config.json names no serving_bundle: a first bundle is made by training.jobs.starter")
    if not job.is_complete:
        raise ConfigError("the training of this run is not complete: there is no manifest.json")
    parts = BundleParts.from_bundle(serving, name=job.config.release)
    sets = Sets.read(job, job.config.options.test_rows)
    job.events.stage("calibrate")
    bundle = job.run_dir / "bundle"
    # Left by an attempt that was stopped before its report.
    shutil.rmtree(bundle, ignore_errors=True)
    parts = with_new_part(job, parts)
    llm_rows = job.config.options.calibration_rows
    serving_abstain = parts.calibration.abstain
    plan = CalibrationPlan(
        llm_rows=llm_rows,
        risk_thresholds=parts.calibration.risk_thresholds,
        abstain_target=serving_abstain.target if abstain_target is None and serving_abstain else abstain_target,
    )
    if job.config.kind != "rules":  # new rules leave the arms, and so their calibration, as they are
        parts = choose_runtime(job, parts, sets)
        if job.config.arm == "llm":
            parts = choose_int8(job, parts, sets, rows=llm_rows)
        parts = replace(parts, calibration=calibrate_parts(job, parts, sets.calibration, plan))
    build_bundle(bundle, parts)
    job.events.stage("evaluate")
    candidate = api.load(bundle, base_models=job.config.base_models)
    golden = golden_gate(candidate)
    answers = answer_rows(job, "evaluate candidate", candidate, sets)
    figures = judge_answers(sets, answers)
    # Row ids are hashes, so the first ones are a fair sample.
    given = Given(rows=sets.test[: llm_rows or None], train=job.rows("train"))
    ablation = ablate(job, candidate, bundle, given)
    candidate.close()
    baseline = api.load(serving, base_models=job.config.base_models)
    answered_before = answer_rows(job, "evaluate baseline", baseline, sets)
    before = judge_answers(sets, answered_before)
    tested = len(sets.test)
    samples = pick_samples(sets.test, answered_before[:tested], answers[:tested], load_schema())
    gates = [golden, *compare(figures, before)]
    for gate in gates:
        job.events.log(f"gate {gate.name}: {'passed' if gate.passed else 'FAILED'} ({gate.value}, bar {gate.bar})")
    write_json(
        report,
        {
            "release": job.config.release,
            "bundle": "bundle",
            "manifest_sha256": manifest_sha256(bundle),
            "baseline_manifest_sha256": manifest_sha256(serving),
            "candidate": figures,
            "baseline": before,
            "gates": [gate.as_dict() for gate in gates],
            "ablation": ablation,
            "samples": samples,
        },
    )


def with_new_part(job: Job, parts: BundleParts) -> BundleParts:
    """Raises ConfigError where the rules that serve are not those that a rules run started from."""
    made: dict[str, Any] = read_json(job.run_dir / "manifest.json")
    if made["arm"] == "rules":
        expected, serving = made["base_rules_version"], RuleSet.load(parts.rules).version
        if expected and expected != serving:
            raise ConfigError(
                f"rules {serving} serve now, the draft was made from {expected}: open a new draft and make its changes "
                "there"
            )
        return replace(parts, rules=job.run_dir / "part")
    part, base = job.run_dir / "part", (str(made["base"]), str(made["base_sha256"]))
    if made["arm"] == "bert":
        return replace(parts, bert=part, bert_base=base)
    return replace(parts, llm=part, llm_base=base)


def run(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--abstain-target", type=float)
    args, others = parser.parse_known_args(argv)
    main_with = partial(main, abstain_target=args.abstain_target)
    return run_job(main_with, "Put a trained arm into a bundle and judge it. --abstain-target SHARE", others)


if __name__ == "__main__":
    sys.exit(run())
