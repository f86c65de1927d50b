"""Fine-tune the LLM arm on verdicts as they are, right or wrong, without pairs: trl's KTOTrainer.

    python -m training.jobs.kto --run-dir DIR

Reads DIR/config.json and DIR/data/kto.jsonl; writes DIR/events.jsonl, checkpoints, DIR/part (the part folder of a
bundle) and DIR/manifest.json last. The same command goes on from the last complete checkpoint. The reference is the
adapter that training starts from. A tenth of the texts is held out, and the agreement with their verdicts is measured.
"""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from classifier.llm_prompt import LabelPrompt
from training.corpus.preferences import KTO_FILE, KtoRow, read_preferences
from training.jobs.config import ConfigError, KtoOptions
from training.jobs.llm_training import (
    JobCallback,
    answer_texts,
    build_prompt,
    common_arguments,
    complete_run,
    limit_threads,
    load_model,
    save_part,
    train_to_end,
)
from training.jobs.reward_model import choose_pad
from training.jobs.rounds import is_held_out
from training.jobs.runtime import Job, run_job
from training.jobs.start import Start, find_start

PAD_STEP = 8
MOST_DESIRABLE = 4 / 3
"""Weight of the desirable rows for each unit of the others: the KTO paper's range is 1 to 4/3 (eq. 8)."""
SHOWN = {"rewards/chosen": "reward_right", "rewards/rejected": "reward_wrong", "kl": "kl"}


class VerdictTrainer(KTOTrainer):
    """KTOTrainer on rows that are tokens already, each with a weight of its own."""

    desirable_weight: Any
    undesirable_weight: Any
    balance: tuple[float, float]
    """Weight of the desirable and of the undesirable rows."""

    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: KTOConfig, dataset_name: str) -> Dataset:
        if not self.calculate_KL:
            return dataset
        # The loss "kto" measures against the lines of a row's neighbours in its batch, so the order is fixed.
        return dataset.map(turn_lines, batched=True, batch_size=args.per_device_train_batch_size)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weight, wanted = inputs.pop("weight"), inputs["label"].bool()
        # trl multiplies the losses of the rows of a kind by these two: as tensors they hold a factor for each row.
        self.desirable_weight = self.balance[0] * weight[wanted]
        self.undesirable_weight = self.balance[1] * weight[~wanted]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]


def turn_lines(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    lines = rows["completion_ids"]
    return {"KL_completion_ids": [lines[-1], *lines[:-1]]}


def balance_kinds(rows: Sequence[KtoRow]) -> tuple[float, float]:
    """Weights of desirable and undesirable rows: their sums stand between 1:1 and 4:3, their mean is 1."""
    wanted = sum(row.weight for row in rows if row.is_desirable)
    unwanted = sum(row.weight for row in rows if not row.is_desirable)
    if not wanted or not unwanted:
        return 1.0, 1.0
    factors = unwanted / wanted if wanted < unwanted else 1.0, max(1.0, wanted / unwanted / MOST_DESIRABLE)
    mean = (factors[0] * wanted + factors[1] * unwanted) / (wanted + unwanted)
    return factors[0] / mean, factors[1] / mean


@dataclass(frozen=True, slots=True)
class VerdictCollator:
    plain: DataCollatorForUnpairedPreference

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """trl's batch, and `weight` `[B]`."""
        batch: dict[str, Tensor] = self.plain([dict(row) for row in rows])
        return {**batch, "weight": torch.tensor([float(row["weight"]) for row in rows])}


@dataclass(frozen=True, slots=True)
class Prepared:
    start: Start
    prompt: LabelPrompt
    train: list[KtoRow]
    held_out: list[KtoRow]


def prepare(job: Job, options: KtoOptions) -> Prepared:
    rows = [row for row in read_preferences(job.run_dir / "data" / KTO_FILE, KtoRow) if row.weight > 0]
    train = [row for row in rows if not is_held_out(row.text)]
    if len(train) < 2:
        raise ConfigError(f"data/{KTO_FILE} has fewer than two verdicts to learn from: answers make them")
    # Neighbours in a batch should be of different texts; a file lists the verdicts of a text one after the other.
    random.Random(options.seed).shuffle(train)
    start = find_start(job.config)
    prompt = build_prompt(start, job.config.serving_bundle)
    return Prepared(start, prompt, train, [row for row in rows if is_held_out(row.text)])


def encode_verdict(row: KtoRow, prompt: LabelPrompt, max_tokens: int) -> dict[str, Any]:
    return {
        "prompt_ids": prompt.encode_prompt(row.text, max_tokens),
        "completion_ids": prompt.encode_line(row.labels),
        "label": row.is_desirable,
        "weight": row.weight,
    }


def build_trainer(job: Job, options: KtoOptions, prepared: Prepared, accumulation: int) -> VerdictTrainer:
    torch.manual_seed(options.seed)
    rows = [encode_verdict(row, prepared.prompt, options.max_tokens) for row in prepared.train]
    needs_neighbours = options.loss == "kto"
    if needs_neighbours and -(-options.batch_size // accumulation) < 2:
        raise ConfigError("out of memory with two rows at a time, which the loss kto needs: choose apo_zero_unpaired")
    trainer = VerdictTrainer(
        model=load_model(prepared.start, options),
        args=KTOConfig(
            **common_arguments(job, options, len(rows), accumulation),
            loss_type=options.loss,
            beta=options.beta,
            max_length=None,
            train_sampling_strategy="sequential" if needs_neighbours else "random",
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=VerdictCollator(
            DataCollatorForUnpairedPreference(choose_pad(prepared.prompt), pad_to_multiple_of=PAD_STEP)
        ),
        processing_class=prepared.prompt.tokenizer,
        callbacks=[JobCallback(job, SHOWN)],
    )
    trainer.balance = balance_kinds(prepared.train)
    trainer.remove_callback(PrinterCallback)
    return trainer


def judge_agreement(model: Any, prepared: Prepared, max_tokens: int) -> float | None:
    """Share of the held-out verdicts that the arm's answer agrees with; None without any."""
    rows = prepared.held_out
    if not rows:
        return None
    answers = answer_texts(model, prepared.prompt, [row.text for row in rows], max_tokens)
    agreed = [(answer == dict(row.labels)) == row.is_desirable for row, answer in zip(rows, answers, strict=True)]
    return sum(agreed) / len(rows)


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, KtoOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not kto")
    if job.is_complete:
        return
    started = time.monotonic()
    limit_threads()
    job.events.stage("prepare")
    prepared = prepare(job, options)
    wanted = sum(row.is_desirable for row in prepared.train)
    unwanted = len(prepared.train) - wanted
    job.events.log(f"{wanted} right and {unwanted} wrong answers, verdicts on {len(prepared.held_out)} held out")
    if not wanted or not unwanted:
        job.events.log("all verdicts say the same: the arm learns to say more, or less, of everything it says")
    before = judge_agreement(load_model(prepared.start, options), prepared, options.max_tokens)
    job.events.stage("train")
    trainer = train_to_end(
        job, options.batch_size, lambda accumulation: build_trainer(job, options, prepared, accumulation)
    )
    job.events.stage("save")
    after = judge_agreement(trainer.model, prepared, options.max_tokens)
    metrics: dict[str, object] = {"verdicts": len(prepared.train), "held_out_verdicts": len(prepared.held_out)}
    if before is not None and after is not None:
        job.events.metric(trainer.state.global_step, "held_out_agreement", after)
        metrics["held_out_agreement"] = {"before": before, "after": after}
    save_part(trainer.model, prepared.start.base, job.run_dir / "part", options.max_tokens)
    complete_run(job, prepared.start.base, metrics, steps=trainer.state.global_step, started=started)


if __name__ == "__main__":
    sys.exit(run_job(main, "Fine-tune the LLM arm on verdicts."))
