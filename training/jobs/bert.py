"""Fine-tune the BERT arm: one head per dimension on a shared encoder, LoRA or in full.

    python -m training.jobs.bert --run-dir DIR

Reads DIR/config.json and DIR/data/{train,val}.jsonl; writes DIR/events.jsonl, checkpoints, DIR/part (the part folder of
a bundle) and DIR/manifest.json last. The same command goes on from the last complete checkpoint. HEED_THREADS sets the
number of CPU threads.
"""

import contextlib
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoTokenizer

from classifier.base_models import weights_sha256
from classifier.bert import BertModel, Ids, collate, encode_windows
from classifier.schema import Schema, load_schema
from training.corpus.rows import Row
from training.jobs.checkpoints import LoopState, load_checkpoint, save_checkpoint, trainable
from training.jobs.config import BertOptions, ConfigError
from training.jobs.figures import score_labels
from training.jobs.runtime import Job, Stopped, hash_folder, run_job, tidy_adapter
from training.jobs.start import find_start
from training.jobs.targets import (
    Targets,
    batch_loss,
    calibrated_loss,
    encode_targets,
    even_weights,
    known_weight,
    rarity_weights,
)

SORTED_BATCHES = 32
"""Rows are sorted by length within chunks of so many batches: little padding, and still a new order every epoch."""
LORA_DROPOUT = 0.0
"""Inside the adapters it would cost a copy of every activation; the heads have a dropout of their own."""
FULL_RATE = 0.1
"""Of the learning rate, for an encoder trained in full: what suits an adapter would wipe the weights out."""
LOSS_POINTS = 200
"""About how many points the loss curve has."""


@dataclass(frozen=True, slots=True)
class Data:
    """Rows of one split as tensors. `ids[i]` are the tokens of row i."""

    rows: Sequence[Row]
    ids: Sequence[Ids]
    targets: dict[str, Targets]

    def batch_targets(self, batch: Sequence[int], device: torch.device) -> dict[str, Targets]:
        at = torch.tensor(batch)
        return {
            name: Targets(item.shares[at], item.is_soft[at], item.weight[at]).to(device)
            for name, item in self.targets.items()
        }


def bucket_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Every index once, in batches of like length, in an order that the seed alone decides."""
    shuffle = random.Random(seed).shuffle
    order = list(range(len(lengths)))
    shuffle(order)
    chunk = batch_size * SORTED_BATCHES
    batches = []
    for start in range(0, len(order), chunk):
        by_length = sorted(order[start : start + chunk], key=lengths.__getitem__)
        batches += [by_length[at : at + batch_size] for at in range(0, len(by_length), batch_size)]
    shuffle(batches)
    return batches


def rate_at(step: int, total: int, warmup: int) -> float:
    """Share of the peak learning rate: a straight rise, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / max(total - warmup, 1)))


class Trainer:
    """The loop and its state."""

    def __init__(self, job: Job, options: BertOptions) -> None:
        self.job, self.options, self.schema = job, options, load_schema()
        start = find_start(job.config)
        self.base = start.base
        tokenizer = AutoTokenizer.from_pretrained(start.base, local_files_only=True)
        self.pad_id: int = tokenizer.pad_token_id
        rows = job.rows("train")
        weights = rarity_weights(rows, self.schema) if options.class_weights else even_weights(self.schema)
        self.train_data = self._encode(rows, tokenizer, weights)
        self.val_data = self._encode(job.rows("val"), tokenizer, even_weights(self.schema))
        torch.manual_seed(options.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = self._build(start.part).to(self.device)
        parameters = trainable(self.model).values()
        is_full = not hasattr(self.model.encoder, "peft_config")
        self.peak_rate = options.learning_rate * (FULL_RATE if is_full else 1)
        self.optimiser = torch.optim.AdamW(parameters, lr=self.peak_rate, weight_decay=options.weight_decay)
        self.state = load_checkpoint(job.run_dir, self.model, self.optimiser) or LoopState()
        self.state.micro_rows = self.state.micro_rows or options.batch_size
        self.steps_per_epoch = -(-len(rows) // options.batch_size)
        self.total = self.steps_per_epoch * options.epochs
        if self.state.step:
            job.events.log(f"going on from step {self.state.step} of {self.total}")

    def _encode(self, rows: list[Row], tokenizer: Any, weights: dict[str, torch.Tensor]) -> Data:
        ids = [encode_windows(tokenizer, row.text, self.options.max_tokens)[0] for row in rows]
        return Data(rows, ids, encode_targets(rows, self.schema, weights))

    def _build(self, part: Path | None) -> BertModel:
        if part is not None:
            model = BertModel.load(part, self.base, trainable=True)
            model.dropout.p = self.options.dropout
            return model
        heads = {dimension.name: len(dimension.names) for dimension in self.schema.dimensions}
        rank = self.options.lora_rank
        lora = None
        if rank:
            lora = LoraConfig(
                r=rank,
                lora_alpha=2 * rank,
                lora_dropout=LORA_DROPOUT,
                # The pooler comes after the states that are averaged: nothing it computes is used.
                target_modules="all-linear",
                exclude_modules=r".*pooler.*",
            )
        return BertModel.build(self.base, heads, lora=lora, dropout=self.options.dropout)

    def train(self) -> None:
        """Until the last epoch, or until the calibrated validation loss has stopped falling. Raises Stopped."""
        options, state = self.options, self.state
        lengths = [len(ids) for ids in self.train_data.ids]
        while state.epoch < options.epochs and not (options.patience and state.stale_epochs >= options.patience):
            self.model.train()
            batches = bucket_batches(lengths, options.batch_size, options.seed + state.epoch)
            for batch in batches[state.index :]:
                loss = self.step(batch)
                state.step += 1
                state.index += 1
                self._report(loss)
                is_stopping = self.job.stop.is_set
                if is_stopping or state.step % options.checkpoint_steps == 0:
                    save_checkpoint(self.job.run_dir, self.model, self.optimiser, state)
                if is_stopping:
                    raise Stopped
            self._end_epoch()

    def step(self, batch: Sequence[int]) -> float:
        """One optimiser step. Out of memory: smaller micro-batches, the same gradient."""
        rate = self.peak_rate * rate_at(self.state.step, self.total, self._warmup_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        while True:
            try:
                self.optimiser.zero_grad(set_to_none=True)
                loss = self._backward(batch)
                break
            except torch.OutOfMemoryError:
                if self.state.micro_rows <= 1:
                    raise ConfigError("out of memory with one row at a time: lower max_tokens or lora_rank") from None
                self.state.micro_rows = -(-self.state.micro_rows // 2)
                self.job.events.log(f"out of memory: {self.state.micro_rows} rows at a time from here on")
            # Outside the handler: the exception would keep the tensors of the failed pass alive.
            torch.cuda.empty_cache()
        torch.nn.utils.clip_grad_norm_(trainable(self.model).values(), self.options.clip_norm)
        self.optimiser.step()
        return loss

    @property
    def _warmup_steps(self) -> int:
        return int(self.total * self.options.warmup_share)

    def _backward(self, batch: Sequence[int]) -> float:
        """Gradients of the batch's mean loss over known slots, summed over its micro-batches. Returns that loss."""
        divisor = known_weight(self.train_data.batch_targets(batch, self.device))
        total = 0.0
        for at in range(0, len(batch), self.state.micro_rows):
            loss = self._loss(self.train_data, batch[at : at + self.state.micro_rows]) / divisor
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    def _loss(self, data: Data, batch: Sequence[int]) -> torch.Tensor:
        return batch_loss(self._logits(data, batch), data.batch_targets(batch, self.device))

    def _logits(self, data: Data, batch: Sequence[int]) -> dict[str, torch.Tensor]:
        ids, mask = collate([data.ids[index] for index in batch], self.pad_id)
        on_gpu = self.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext():
            logits: dict[str, torch.Tensor] = self.model(ids.to(self.device), mask.to(self.device))
        return logits

    def _report(self, loss: float) -> None:
        if self.state.step % max(1, self.total // LOSS_POINTS) == 0:
            self.job.events.metric(self.state.step, "loss", loss)
        self.job.events.progress("train", self.state.step, self.total)

    def _end_epoch(self) -> None:
        state = self.state
        loss, figures = self.evaluate()
        state.epoch, state.index, state.stale_epochs = state.epoch + 1, 0, state.stale_epochs + 1
        before = state.best
        if loss < state.best_loss:
            state.best, state.best_loss, state.stale_epochs = f"best-{state.epoch:04d}", loss, 0
            self.model.save(self.job.run_dir / state.best, max_tokens=self._serving_tokens)
        # The checkpoint names the best weights, so both change together or not at all.
        save_checkpoint(self.job.run_dir, self.model, self.optimiser, state)
        if before and before != state.best:
            shutil.rmtree(self.job.run_dir / before, ignore_errors=True)
        self.job.events.metric(state.step, "val_loss", loss)
        for name, value in _flatten(figures, self.schema):
            self.job.events.metric(state.step, name, value)

    @property
    def _serving_tokens(self) -> int:
        return max(self.options.max_tokens, 64)

    @torch.inference_mode()
    def evaluate(self) -> tuple[float, dict[str, object]]:
        """Mean calibrated loss over known slots, and figures, on the validation rows."""
        self.model.eval()
        rows = self.val_data.rows
        batches = list(_in_order([len(ids) for ids in self.val_data.ids], self.state.micro_rows))
        parts = [self._logits(self.val_data, batch) for batch in batches]
        order = [index for batch in batches for index in batch]
        logits = {name: torch.cat([part[name] for part in parts]) for name in self.schema.names}
        targets = self.val_data.batch_targets(order, self.device)
        answers = [dict[str, str]() for _ in rows]
        for dimension in self.schema.dimensions:
            for index, choice in zip(order, logits[dimension.name].argmax(-1).tolist(), strict=True):
                answers[index][dimension.name] = dimension.names[choice]
        loss = sum(calibrated_loss(logits[name], item) for name, item in targets.items())
        figures = score_labels([row.labels for row in rows], answers, self.schema)
        return loss / float(known_weight(targets)), figures


def _in_order(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for at in range(0, len(order), batch_size):
        yield order[at : at + batch_size]


def _flatten(figures: dict[str, Any], schema: Schema) -> Iterator[tuple[str, float]]:
    for name in schema.names:
        for figure in ("accuracy", "macro_f1"):
            if figures[name][figure] is not None:
                yield f"val_{name}_{figure}", figures[name][figure]
    for name in ("missed_risk", "false_alarm"):
        if figures[name]["share"] is not None:
            yield f"val_{name}", figures[name]["share"]


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, BertOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not bert")
    if job.is_complete:
        return
    started = time.monotonic()
    torch.set_num_threads(int(os.environ.get("HEED_THREADS") or os.cpu_count() or 1))
    job.events.stage("prepare")
    trainer = Trainer(job, options)
    job.events.log(f"{len(trainer.train_data.rows)} training rows, {len(trainer.val_data.rows)} validation rows")
    job.events.stage("train")
    trainer.train()
    job.events.stage("save")
    _finish(job, trainer, time.monotonic() - started)


def _finish(job: Job, trainer: Trainer, seconds: float) -> None:
    if not trainer.state.best:
        raise ConfigError("the validation loss was never a number: lower learning_rate")
    part = job.run_dir / "part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(job.run_dir / trainer.state.best, part)
    tidy_adapter(part, trainer.base)
    trainer.model = BertModel.load(part, trainer.base).to(trainer.device)
    loss, figures = trainer.evaluate()
    job.complete(
        {
            "arm": "bert",
            "base": trainer.base.name,
            "base_sha256": weights_sha256(trainer.base, trust_manifest=True),
            "content_hash": hash_folder(part),
            "metrics": {"val_loss": loss, **figures},
            "options": asdict(trainer.options),
            "seconds": round(seconds, 1),
            "steps": trainer.state.step,
        }
    )


if __name__ == "__main__":
    sys.exit(run_job(main, "Fine-tune the BERT arm."))
