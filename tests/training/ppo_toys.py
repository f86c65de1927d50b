"""Verdicts on toy rows, and run dirs of label_ppo."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.schema import load_schema
from tests.classifier.toys import TOY_BERT, TOY_LLAMA
from tests.training.toyruns import GLAD, SAD, make_rows, write_data
from training.corpus.preferences import REWARDS_FILE, RewardRow, write_preferences
from training.corpus.rows import Row
from training.jobs.config import JobConfig, parse_options

FAST: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "ppo_epochs": 2,
    "learning_rate": 0.02,
    "lora_rank": 4,
    "checkpoint_steps": 6,
    "max_tokens": 32,
    "patience": 0,
    "replay_weight": 0.0,
}


def make_verdicts(count: int, *, is_right: bool | None = None) -> list[RewardRow]:
    """On texts that a small model can tell apart: what is right, and what else the model said."""
    rows = []
    for row in make_rows(count):
        other = GLAD if row.labels == SAD else SAD
        rewards = {}
        for name in load_schema().names:
            right, wrong = {str(row.labels[name]): 1.0}, {other[name]: -1.0}
            rewards[name] = {**({} if is_right is False else right), **({} if is_right else wrong)}
        rows.append(RewardRow(row.id, row.text, rewards))
    return rows


def make_ppo_run(
    run_dir: Path,
    bases: Path,
    verdicts: Sequence[RewardRow],
    *,
    replay: Sequence[Row] = (),
    start: Path | None = None,
    **options: Any,
) -> Path:
    given = {**FAST, **options}
    base = bases / (TOY_LLAMA if given.get("arm") == "llm" else TOY_BERT)
    JobConfig(
        kind="label_ppo",
        options=parse_options("label_ppo", given),
        base=base,
        base_models=bases,
        init_from=start,
    ).write(run_dir)
    write_data(run_dir / "data", replay or make_rows(24), make_rows(8))
    write_preferences(run_dir / "data" / REWARDS_FILE, verdicts)
    return run_dir


def read_manifest(run_dir: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    return made


def events_of(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def curve(run_dir: Path, name: str) -> list[float]:
    return [event["value"] for event in events_of(run_dir, "metric") if event["name"] == name]
