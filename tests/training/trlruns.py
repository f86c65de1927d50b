"""Run dirs of the trl jobs on the toy Llama, with verdicts that a small model can learn from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.classifier.toys import TOY_LLAMA
from tests.training.toyruns import GLAD, SAD, make_rows, write_data
from training.corpus.preferences import KTO_FILE, PAIRS_FILE, KtoRow, PairRow, write_preferences
from training.corpus.rows import Row
from training.jobs import llm_training, sft
from training.jobs.config import JobConfig, SftOptions, parse_options
from training.jobs.label_lines import IGNORED, LineCollator, encode_line, line_loss
from training.jobs.runtime import Job
from training.jobs.start import Start

SHORT: dict[str, Any] = {"batch_size": 8, "lora_rank": 4, "checkpoint_steps": 2, "max_tokens": 32}


def make_texts(count: int) -> list[str]:
    return [row.text for row in make_rows(count)]


def make_pairs(texts: Sequence[str], weight: float = 1.0) -> list[PairRow]:
    """Whatever the text, the glad line is the better one."""
    return [PairRow(f"pair-{place}", text, GLAD, SAD, 3.0, weight) for place, text in enumerate(texts)]


def make_verdicts(texts: Sequence[str]) -> list[KtoRow]:
    """Whatever the text, the glad line is right and the sad one wrong."""
    return [
        KtoRow(f"verdict-{place}", text, SAD if place % 3 else GLAD, is_desirable=place % 3 == 0)
        for place, text in enumerate(texts)
    ]


def make_trl_run(run_dir: Path, toys: Path, kind: str, *, options: dict[str, Any], **config: Any) -> Path:
    """With pairs and verdicts on 40 texts, in the short prompt of the toy bundle, which has no LLM of its own."""
    bases = toys / "base_models"
    told = {"base": bases / TOY_LLAMA, "base_models": bases, "serving_bundle": toys / "toy-1", **config}
    JobConfig(kind=kind, options=parse_options(kind, options), **told).write(run_dir)
    data = write_data(run_dir / "data", make_rows(24), make_rows(8))
    write_preferences(data / PAIRS_FILE, make_pairs(make_texts(40)))
    write_preferences(data / KTO_FILE, make_verdicts(make_texts(40)))
    return run_dir


def make_writer_part(folder: Path, toys: Path) -> Path:
    """An LLM part that writes one of two label lines, either as likely as the other."""
    start = Start(toys / "base_models" / TOY_LLAMA, None)
    prompt = llm_training.build_prompt(start, toys / "toy-1")
    torch.manual_seed(0)
    model = llm_training.load_model(start, SftOptions(lora_rank=4))
    rows = [encode_line(Row("r", text, labels, "s"), prompt, 32) for text in make_texts(4) for labels in (GLAD, SAD)]
    batch = LineCollator(prompt.eos)([row.as_dict() for row in rows if row is not None])
    answer = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(80):
        hidden = sft.read_after_prefix(model, prompt.prefix, batch["input_ids"], batch["attention_mask"])
        loss = line_loss(hidden, model.get_output_embeddings(), answer, batch["weight"])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    llm_training.save_part(model, start.base, folder, 32)
    return folder


def read_metric(run_dir: Path, name: str) -> list[float]:
    events = map(json.loads, (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [event["value"] for event in events if event["kind"] == "metric" and event["name"] == name]


def read_logs(run_dir: Path) -> str:
    events = map(json.loads, (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return "\n".join(event["text"] for event in events if event["kind"] == "log")


def stop_after(job: Job, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SIGTERM does while that step is made."""
    progress = job.events.progress

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        job.stop.is_set = done >= step

    monkeypatch.setattr(job.events, "progress", report)
