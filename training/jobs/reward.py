"""Train a reward model: which of two label lines of a text is the better one. trl's RewardTrainer, LoRA, one score.

    python -m training.jobs.reward --run-dir DIR

Reads DIR/config.json and DIR/data/pairs.jsonl; writes DIR/events.jsonl, checkpoints, DIR/part (adapter and head) and
DIR/manifest.json last. The same command goes on from the last complete checkpoint. No bundle is made of the part: a ppo
run asks it. A tenth of the texts is held out, and the share of their pairs that come out right is measured.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import DataCollatorForPreference, RewardTrainer

from classifier.llm_prompt import LabelPrompt
from training.corpus.preferences import PAIRS_FILE, PairRow, read_preferences
from training.jobs.config import ConfigError, RewardOptions
from training.jobs.llm_training import (
    JobCallback,
    build_prompt,
    common_arguments,
    complete_run,
    limit_threads,
    train_to_end,
)
from training.jobs.reward_model import build_reward_model, choose_pad, save_reward_part
from training.jobs.rounds import is_held_out
from training.jobs.runtime import Job, run_job
from training.jobs.start import Start, find_start

PAD_STEP = 8
SHOWN = {"accuracy": "pair_accuracy", "margin": "lead"}


class PairTrainer(RewardTrainer):
    """RewardTrainer that knows how sure a pair is: the share of the voices that agree with it."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weight = inputs.pop("weight")
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)  # type: ignore[no-untyped-call]
        loss = loss + doubt_penalty(outputs.logits.squeeze(-1), inputs["margin"], weight)
        return (loss, outputs) if return_outputs else loss


def doubt_penalty(rewards: Tensor, margin: Tensor, weight: Tensor) -> Tensor:
    """What label smoothing adds to the loss of a batch. `rewards` `[2B]`, the better ones first; others `[B]`.

    With x = better - worse - margin, the smoothed loss is -w log s(x) - (1 - w) log s(-x) = -log s(x) + (1 - w) x.
    """
    better, worse = rewards.float().chunk(2)
    return ((1 - weight) * (better - worse - margin)).mean()


@dataclass(frozen=True, slots=True)
class PairCollator:
    plain: DataCollatorForPreference

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` `[2B, T]`, the better ones first; `margin`, `weight` `[B]`."""
        batch: dict[str, Tensor] = self.plain([dict(row) for row in rows])
        return {**batch, "weight": torch.tensor([float(row["weight"]) for row in rows])}


@dataclass(frozen=True, slots=True)
class Prepared:
    start: Start
    prompt: LabelPrompt
    pad: int
    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]


def prepare(job: Job, options: RewardOptions) -> Prepared:
    pairs = read_preferences(job.run_dir / "data" / PAIRS_FILE, PairRow)
    train = [row for row in pairs if not is_held_out(row.text)]
    if not train:
        raise ConfigError(f"data/{PAIRS_FILE} has no pairs to learn from: corrections make them")
    start = find_start(job.config)
    prompt = build_prompt(start, job.config.serving_bundle)
    held_out = [row for row in pairs if is_held_out(row.text)]
    return Prepared(
        start,
        prompt,
        choose_pad(prompt),
        [encode_pair(row, prompt, options) for row in train],
        [encode_pair(row, prompt, options) for row in held_out],
    )


def encode_pair(row: PairRow, prompt: LabelPrompt, options: RewardOptions) -> dict[str, Any]:
    """The whole prompt and each line, in the tokens that the LLM arm reads and writes."""
    asked = prompt.encode_prompt(row.text, options.max_tokens)
    return {
        "chosen_ids": asked + prompt.encode_line(row.chosen),
        "rejected_ids": asked + prompt.encode_line(row.rejected),
        "margin": row.margin * options.margin_scale,
        "weight": row.weight,
    }


def build_trainer(job: Job, options: RewardOptions, prepared: Prepared, accumulation: int) -> PairTrainer:
    torch.manual_seed(options.seed)
    tokenizer = prepared.prompt.tokenizer
    # The padding of the base is often its end of turn, and a score is read at the last token that is no padding.
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(prepared.pad)
    trainer = PairTrainer(
        model=build_reward_model(prepared.start, options, prepared.pad),
        args=RewardConfig(
            **common_arguments(job, options, len(prepared.train), accumulation),
            center_rewards_coefficient=options.center_coef or None,
            max_length=None,
        ),
        train_dataset=Dataset.from_list(prepared.train),
        data_collator=PairCollator(DataCollatorForPreference(prepared.pad, pad_to_multiple_of=PAD_STEP)),
        processing_class=tokenizer,
        callbacks=[JobCallback(job, SHOWN)],
    )
    # The loss is a mean already: the parts of a batch are averaged, not summed.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    return trainer


@torch.inference_mode()
def judge_pairs(trainer: PairTrainer, pairs: Sequence[dict[str, Any]], batch_size: int) -> float | None:
    """Share of the pairs whose better line gets the higher score; None without pairs."""
    model: Any = trainer.model
    model.eval()
    right = 0
    ordered = sorted(pairs, key=lambda row: len(row["chosen_ids"]))
    for at in range(0, len(ordered), batch_size):
        batch = trainer.data_collator(ordered[at : at + batch_size])
        ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
        better, worse = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.squeeze(-1).chunk(2)
        right += int((better > worse).sum())
    return right / len(pairs) if pairs else None


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, RewardOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not reward")
    if job.is_complete:
        return
    started = time.monotonic()
    limit_threads()
    job.events.stage("prepare")
    prepared = prepare(job, options)
    job.events.log(f"{len(prepared.train)} pairs, {len(prepared.held_out)} held out")
    job.events.stage("train")
    before = judge_pairs(build_trainer(job, options, prepared, 1), prepared.held_out, options.batch_size)
    trainer = train_to_end(
        job, options.batch_size, lambda accumulation: build_trainer(job, options, prepared, accumulation)
    )
    job.events.stage("save")
    after = judge_pairs(trainer, prepared.held_out, options.batch_size)
    metrics: dict[str, object] = {"pairs": len(prepared.train), "held_out_pairs": len(prepared.held_out)}
    if before is not None and after is not None:
        job.events.metric(trainer.state.global_step, "held_out_accuracy", after)
        metrics["held_out_accuracy"] = {"before": before, "after": after}
    save_reward_part(trainer.model, prepared.start, job.run_dir / "part", job.config.serving_bundle, options.max_tokens)
    complete_run(job, prepared.start.base, metrics, steps=trainer.state.global_step, started=started)


if __name__ == "__main__":
    sys.exit(run_job(main, "Train a reward model on pairs of answers."))
