"""Small run dirs on the toy base models, and a look at the processes that work in one."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.classifier.toys import TOY_BERT, TOY_LLAMA
from training.corpus.rows import Row, write_rows
from training.jobs.config import JobConfig, parse_options

ROOT = Path(__file__).resolve().parents[2]
GLAD = {"emotion": "positive", "sentiment": "positive", "stress": "low", "risk": "none"}
SAD = {"emotion": "sadness", "sentiment": "negative", "stress": "medium", "risk": "low"}
ANSWERS = {"the sun is out": GLAD, "the train was late": SAD, "a cake for you": GLAD, "nobody came": SAD}


def make_rows(count: int, source: str = "bank:T") -> list[Row]:
    """Rows that a small model can learn: glad texts hold an x, sad ones a y."""
    return [
        Row(
            f"row-{index:03d}",
            f"{'x' if index % 2 else 'y'} {index} " * (1 + index % 3),
            [SAD, GLAD][index % 2],
            source,
        )
        for index in range(count)
    ]


def answer_rows() -> list[Row]:
    return [Row(f"answer-{place}", text, labels, "bank:T") for place, (text, labels) in enumerate(ANSWERS.items())]


def write_data(folder: Path, train: Sequence[Row], held_out: Sequence[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.jsonl", train)
    write_rows(folder / "val.jsonl", held_out)
    write_rows(folder / "test.jsonl", held_out)
    return folder


def make_run_dir(run_dir: Path, bases: Path, kind: str = "bert", *, rows: int = 24, **options: Any) -> Path:
    base = bases / (TOY_BERT if kind == "bert" else TOY_LLAMA)
    JobConfig(kind=kind, options=parse_options(kind, options), base=base, base_models=bases).write(run_dir)
    write_data(run_dir / "data", make_rows(rows), make_rows(8))
    return run_dir


def start_job(kind: str, run_dir: Path, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", f"training.jobs.{kind}", "--run-dir", str(run_dir)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "HEED_THREADS": "1", **(env or {})})


def read_done(run_dir: Path) -> int:
    """The last step that the job's progress events tell of."""
    path = run_dir / "events.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    steps = [event["done"] for line in lines if (event := json.loads(line))["kind"] == "progress"]
    return steps[-1] if steps else 0


def job_pids(run_dir: Path) -> list[int]:
    """Live processes whose command line names this run dir."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            is_zombie = command and "\nState:\tZ" in (entry / "status").read_text()
        except OSError:
            continue
        if b"training.jobs" in command and str(run_dir).encode() in command and not is_zombie:
            found.append(int(entry.name))
    return found
