"""May the LLM part run in 8-bit integers on a CPU? Measured against float32 on rows that no arm was trained on.

The bars are those of the BERT part: see `onnx_gate`. What was measured is written into llm.json beside the answer.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from classifier.base_models import find_base
from classifier.bundle import BundleParts
from classifier.llm import LlmArm
from classifier.llm_load import LlmSettings, read_settings, settings_json
from classifier.schema import load_schema
from classifier.types import ArmScores
from training.corpus.rows import Row
from training.jobs.candidate import Sets, in_batches
from training.jobs.onnx_gate import answer, measure_delta
from training.jobs.runtime import Job


def choose_int8(job: Job, parts: BundleParts, sets: Sets, *, rows: int = 0) -> BundleParts:
    """The parts with an llm part that says whether it runs in int8. `rows`: how many are read, 0 for all.

    Nothing is measured for a part that says so already or runs on a server, on a machine with a GPU, or where
    HEED_LLM_INT8=0 rules it out. Raises Stopped between two batches.
    """
    if parts.llm is None or parts.llm_base is None:
        return parts
    if torch.cuda.is_available() or os.environ.get("HEED_LLM_INT8") == "0":
        return parts
    settings = read_settings(parts.llm)
    if "int8" in settings or "remote" in settings:
        return parts
    base = find_base(parts.llm_base[0], job.config.base_models)
    # Each text once: a small snapshot has the same rows for calibration and test. Row ids are hashes: a fair sample.
    held_out = sorted({row.text: row for row in (*sets.calibration, *sets.test)}.values(), key=lambda row: row.id)
    found = _judge(job, parts, base, held_out[: rows or None])
    # A copy: the run's own part is what its version is registered by.
    part = job.run_dir / "llm"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(parts.llm, part)
    (part / "llm.json").write_text(settings_json(settings | found), encoding="utf-8")
    return replace(parts, llm=part)


def _judge(job: Job, parts: BundleParts, base: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """What llm.json says of int8."""
    full, small = (_score(job, parts, base, rows, int8=int8) for int8 in (False, True))
    schema = load_schema()
    delta = measure_delta(rows, full, small, schema)
    for gate in delta.gates:
        job.events.log(f"gate llm {gate.name}: {'passed' if gate.passed else 'FAILED'} ({gate.value}, bar {gate.bar})")
    agreement = {
        name: round(sum(answer(a, name) == answer(b, name) for a, b in zip(full, small, strict=True)) / len(rows), 5)
        for name in schema.names
    }
    allowed = bool(rows) and all(gate.passed for gate in delta.gates)
    return {"int8": allowed, "int8_measured": {**delta.as_dict(), "agreement": agreement}}


def _score(job: Job, parts: BundleParts, base: Path, rows: Sequence[Row], *, int8: bool) -> list[ArmScores]:
    assert parts.llm is not None
    settings = replace(LlmSettings.read(parts.llm), int8=int8)
    prompt = parts.prompt.read_text(encoding="utf-8")
    arm = LlmArm.load(parts.llm, base, load_schema(), prompt, settings=settings)
    scores: list[ArmScores] = []
    for batch in in_batches(job, "score int8" if int8 else "score fp32", rows):
        scores += arm.score([row.text for row in batch])
    return scores
