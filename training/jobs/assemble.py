"""Put a trained arm into the serving bundle's place beside its other parts, and judge the result.

    python -m training.jobs.assemble --run-dir DIR

Reads DIR/manifest.json, DIR/part and the serving bundle that DIR/config.json names; writes DIR/bundle and, last,
DIR/report.json with figures of candidate and baseline on the same held-out rows and the gates between them.
"""

import shutil
import sys
from dataclasses import replace
from typing import Any

from classifier import api
from classifier.bundle import BundleParts, build_bundle, manifest_sha256
from training.jobs.candidate import Sets, calibrate_parts, golden_gate, judge, keep_operating_point
from training.jobs.config import ConfigError, read_json, write_json
from training.jobs.gates import compare
from training.jobs.runtime import Job, run_job


def main(job: Job) -> None:
    report = job.run_dir / "report.json"
    if report.is_file():
        return
    serving = job.config.serving_bundle
    if serving is None:
        raise ConfigError("config.json names no serving_bundle: a first bundle is made by training.jobs.starter")
    if not job.is_complete:
        raise ConfigError("the training of this run is not complete: there is no manifest.json")
    parts = BundleParts.from_bundle(serving, name=job.config.release)
    sets = Sets.read(job)
    job.events.stage("calibrate")
    bundle = job.run_dir / "bundle"
    # Left by an attempt that was stopped before its report.
    shutil.rmtree(bundle, ignore_errors=True)
    parts = with_new_arm(job, parts)
    fitted = calibrate_parts(job, parts, sets.calibration, job.config.options.calibration_rows)
    build_bundle(bundle, replace(parts, calibration=keep_operating_point(fitted, parts.calibration)))
    job.events.stage("evaluate")
    candidate = api.load(bundle, base_models=job.config.base_models)
    golden = golden_gate(candidate)
    figures = judge(job, "evaluate candidate", candidate, sets)
    candidate.close()
    baseline = api.load(serving, base_models=job.config.base_models)
    before = judge(job, "evaluate baseline", baseline, sets)
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
        },
    )


def with_new_arm(job: Job, parts: BundleParts) -> BundleParts:
    made: dict[str, Any] = read_json(job.run_dir / "manifest.json")
    part, base = job.run_dir / "part", (str(made["base"]), str(made["base_sha256"]))
    if made["arm"] == "bert":
        return replace(parts, bert=part, bert_base=base)
    return replace(parts, llm=part, llm_base=base)


if __name__ == "__main__":
    sys.exit(run_job(main, "Put a trained arm into a bundle and judge it."))
