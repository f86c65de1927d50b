"""May the BERT part be served as int8 ONNX? Measured against torch in fp32 on rows that nothing was fitted on.

It may when no dimension loses more than LOSS_BAR of its labels and no more risk is missed. Where it may not, torch
serves the part: the same answers, only slower, so the bars need no allowance for chance.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classifier.base_models import find_base, sha256_of
from classifier.bert import SETTINGS_NAME, BertArm, EncoderArm
from classifier.bert_onnx import OnnxBertArm, read_override
from classifier.bundle import BundleParts
from classifier.derived import ExportFailed, ensure_onnx, inputs_sha256
from classifier.schema import Schema, load_schema
from classifier.types import ArmScores
from training.corpus.rows import Row, likeliest
from training.jobs.candidate import Sets, in_batches
from training.jobs.gates import Gate
from training.jobs.runtime import Job

LOSS_BAR = 0.003
"""Share of the labels of a dimension that int8 may lose."""


@dataclass(frozen=True, slots=True)
class Change:
    """What int8 did to the answers of one kind: `lost` were right before and are wrong now, `won` the other way."""

    lost: int
    won: int
    total: int

    @property
    def loss(self) -> float:
        return (self.lost - self.won) / self.total if self.total else 0.0

    def is_within(self, bar: float) -> bool:
        return self.lost - self.won <= bar * self.total + 1e-9

    def as_dict(self) -> dict[str, Any]:
        return {
            "lost": self.lost,
            "won": self.won,
            "rows": self.total,
            "loss_points": round(100 * self.loss, 3),
        }


@dataclass(frozen=True, slots=True)
class Delta:
    labels: Mapping[str, Change]
    missed_risk: Change
    """Among texts whose risk is medium or high: `lost` are missed now, `won` no longer."""

    @property
    def gates(self) -> list[Gate]:
        why = "int8 may lose at most three labels in a thousand of a dimension"
        found = [
            Gate(f"int8 {name}", change.is_within(LOSS_BAR), round(change.loss, 5), LOSS_BAR, why)
            for name, change in self.labels.items()
        ]
        missed = self.missed_risk
        why = "int8 may not miss more risk"
        return [*found, Gate("int8 missed risk", missed.is_within(0), round(missed.loss, 5), 0, why)]

    def as_dict(self) -> dict[str, Any]:
        labels = {name: change.as_dict() for name, change in self.labels.items()}
        return {"labels": labels, "missed_risk": self.missed_risk.as_dict()}


def measure_delta(
    rows: Sequence[Row], before: Sequence[ArmScores], after: Sequence[ArmScores], schema: Schema
) -> Delta:
    """`before` and `after`: scores of the same rows. A row counts for the dimensions it has a label of."""
    labels = {
        name: _count(
            (answer(old, name) == truth, answer(new, name) == truth)
            for row, old, new in zip(rows, before, after, strict=True)
            if (truth := _truth(row, name)) is not None
        )
        for name in schema.names
    }
    risk = schema["risk"]
    at_risk = risk.names[risk.index("medium") :]
    missed = _count(
        (answer(old, "risk") in at_risk, answer(new, "risk") in at_risk)
        for row, old, new in zip(rows, before, after, strict=True)
        if _truth(row, "risk") in at_risk
    )
    return Delta(labels, missed)


def answer(scores: ArmScores, name: str) -> str:
    row = scores.probabilities[name]
    return max(row, key=row.__getitem__)


def _truth(row: Row, name: str) -> str | None:
    label = row.labels.get(name)
    return None if label is None else likeliest(label)


def _count(pairs: Iterable[tuple[bool, bool]]) -> Change:
    """Of (right before, right after)."""
    found = list(pairs)
    return Change(
        lost=sum(before and not after for before, after in found),
        won=sum(after and not before for before, after in found),
        total=len(found),
    )


def choose_runtime(job: Job, parts: BundleParts, sets: Sets) -> BundleParts:
    """The parts with a bert part that says which runtime serves it, and what was measured for that.

    A part that says so already stays as it is; nothing is measured where HEED_BERT_RUNTIME=torch rules ONNX out. Raises
    Stopped between two batches.
    """
    if parts.bert is None or parts.bert_base is None or "runtime" in _read_settings(parts.bert):
        return parts
    if read_override() == "torch":
        return parts
    base = find_base(parts.bert_base[0], job.config.base_models)
    runtime = _judge(job, parts.bert, base, _held_out(sets))
    # A copy: the run's own part is what its version is registered by.
    part = job.run_dir / "bert"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(parts.bert, part)
    settings = json.dumps({**_read_settings(part), "runtime": runtime}, indent=2)
    (part / SETTINGS_NAME).write_text(settings + "\n", encoding="utf-8")
    return replace(parts, bert=part)


def _judge(job: Job, part: Path, base: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """What bert.json says of the runtime."""
    schema = load_schema()
    job.events.stage("export")
    try:
        int8 = OnnxBertArm.load(part, base, schema)
        path = ensure_onnx(part, base, schema)
    except ExportFailed as error:
        job.events.log(f"the bert part is served by torch: {error}")
        return {"name": "torch", "why": "it could not be exported"}
    exact = BertArm.load(part, base, schema)
    delta = measure_delta(rows, _score(job, "score fp32", exact, rows), _score(job, "score int8", int8, rows), schema)
    for gate in delta.gates:
        job.events.log(f"gate {gate.name}: {'passed' if gate.passed else 'FAILED'} ({gate.value}, bar {gate.bar})")
    return {
        "name": "onnx" if all(gate.passed for gate in delta.gates) else "torch",
        "inputs_sha256": inputs_sha256(part, base, schema),
        "onnx_sha256": sha256_of(path),
        "measured": delta.as_dict(),
    }


def _score(job: Job, stage: str, arm: EncoderArm, rows: Sequence[Row]) -> list[ArmScores]:
    scores: list[ArmScores] = []
    for batch in in_batches(job, stage, rows):
        scores += arm.score([row.text for row in batch])
    return scores


def _held_out(sets: Sets) -> list[Row]:
    """Each text once: a small snapshot has the same rows for calibration and test."""
    return list({row.text: row for row in (*sets.calibration, *sets.test)}.values())


def _read_settings(part: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((part / SETTINGS_NAME).read_text(encoding="utf-8"))
    return settings
