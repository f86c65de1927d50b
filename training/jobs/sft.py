"""Fine-tune the LLM arm: LoRA (or QLoRA) with trl's SFTTrainer, loss on the label slots.

    python -m training.jobs.sft --run-dir DIR

Reads DIR/config.json and DIR/data/{train,val}.jsonl; writes DIR/events.jsonl, checkpoints, DIR/part (the part folder of
a bundle) and DIR/manifest.json last. The same command goes on from the last complete checkpoint.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import DynamicCache, PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from classifier.llm_prompt import LabelPrompt
from training.corpus.rows import Row
from training.jobs.config import ConfigError, SftOptions
from training.jobs.label_lines import LineCollator, LineRow, encode_lines, line_loss
from training.jobs.llm_training import (
    JobCallback,
    build_prompt,
    common_arguments,
    complete_run,
    limit_threads,
    train_to_end,
)
from training.jobs.llm_training import load_model as load_model
from training.jobs.llm_training import save_part as save_part
from training.jobs.runtime import Job, run_job
from training.jobs.start import Start, find_start


class LabelTrainer(SFTTrainer):
    """SFTTrainer that reads the shared prompt prefix once for a whole batch: its keys and values serve every row.

    The prefix is several times as long as a text, so this saves most of the work, and the loss is the same.
    """

    prefix: tuple[int, ...]

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels, weight = inputs["labels"], inputs["weight"]
        # Checkpointing recomputes the forward pass and DDP hooks each one: both want a single plain pass.
        is_shared = not self.args.gradient_checkpointing and self.accelerator.num_processes == 1
        read = read_after_prefix if is_shared else read_whole
        hidden = read(model, self.prefix, inputs["input_ids"], inputs["attention_mask"])
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        loss = line_loss(hidden, head, labels, weight)
        return (loss, {"loss": loss.detach()}) if return_outputs else loss


def read_after_prefix(model: Any, prefix: Sequence[int], ids: Tensor, mask: Tensor) -> Tensor:
    """Last hidden states `[B, T, H]`; gradients flow into the prefix through its cache."""
    first = DynamicCache()
    model(input_ids=ids.new_tensor([list(prefix)]), past_key_values=first, use_cache=True, logits_to_keep=1)
    cache = DynamicCache()
    layers: Any = first.layers
    for index, layer in enumerate(layers):
        shape = (len(ids), -1, -1, -1)
        cache.update(layer.keys.expand(shape), layer.values.expand(shape), index)
    seen = torch.cat([mask.new_ones(len(ids), len(prefix)), mask], 1)
    output = model(
        input_ids=ids,
        attention_mask=seen,
        position_ids=(seen.cumsum(1) - 1)[:, len(prefix) :].clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        output_hidden_states=True,
    )
    hidden: Tensor = output.hidden_states[-1]
    return hidden


def read_whole(model: Any, prefix: Sequence[int], ids: Tensor, mask: Tensor) -> Tensor:
    """The same states by one pass over prefix and row. Padding stands between the two and is not seen."""
    before = ids.new_tensor([list(prefix)]).expand(len(ids), -1)
    seen = torch.cat([torch.ones_like(before), mask], 1)
    output = model(
        input_ids=torch.cat([before, ids], 1),
        attention_mask=seen,
        position_ids=(seen.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=1,
        output_hidden_states=True,
    )
    hidden: Tensor = output.hidden_states[-1][:, len(prefix) :]
    return hidden


@dataclass(frozen=True, slots=True)
class Prepared:
    start: Start
    prompt: LabelPrompt
    train: list[LineRow]
    val: list[LineRow]


def prepare(job: Job, options: SftOptions) -> Prepared:
    start = find_start(job.config)
    prompt = build_prompt(start, job.config.serving_bundle)
    chosen = choose_rows(job.rows("train"), options.max_rows)
    val = choose_rows(job.rows("val"), options.calibration_rows)
    prepared = Prepared(
        start,
        prompt,
        encode_lines(chosen, prompt, options.max_tokens, slot_noise=options.slot_noise, seed=options.seed),
        encode_lines(val, prompt, options.max_tokens),
    )
    if not prepared.train or not prepared.val:
        raise ConfigError("no row has a label with a single value: there is nothing the LLM could learn from")
    return prepared


def choose_rows(rows: list[Row], limit: int) -> list[Row]:
    """At most `limit` rows (0: all): feedback first, then by id, which is a hash and so a fair sample."""
    ordered = sorted(rows, key=lambda row: (row.source not in ("feedback", "golden"), row.id))
    return ordered[:limit] if limit else ordered


def build_trainer(job: Job, options: SftOptions, prepared: Prepared, accumulation: int) -> LabelTrainer:
    """A batch of `batch_size` rows in `accumulation` parts."""
    torch.manual_seed(options.seed)
    trainer = LabelTrainer(
        model=load_model(prepared.start, options),
        args=SFTConfig(
            **common_arguments(job, options, len(prepared.train), accumulation),
            train_sampling_strategy="group_by_length",
            length_column_name="length",
            # The rows are tokens already, the very ones that serving reads.
            dataset_kwargs={"skip_prepare_dataset": True},
            loss_type="nll",
        ),
        train_dataset=Dataset.from_list([row.as_dict() for row in prepared.train]),
        data_collator=LineCollator(prepared.prompt.eos),
        processing_class=prepared.prompt.tokenizer,
        callbacks=[JobCallback(job)],
    )
    trainer.prefix = prepared.prompt.prefix
    # The loss is a mean already: the parts of a batch are averaged, not summed.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    return trainer


@torch.inference_mode()
def validate(trainer: LabelTrainer, rows: Sequence[LineRow], batch_size: int) -> float:
    """Mean loss per row."""
    model: Any = trainer.model
    model.eval()
    total = 0.0
    ordered = sorted(rows, key=lambda row: len(row.ids))
    for at in range(0, len(ordered), batch_size):
        part = ordered[at : at + batch_size]
        batch = trainer.data_collator([row.as_dict() for row in part])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        total += float(trainer.compute_loss(model, inputs)) * len(part)
    return total / len(rows)


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, SftOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not sft")
    if job.is_complete:
        return
    started = time.monotonic()
    limit_threads()
    job.events.stage("prepare")
    prepared = prepare(job, options)
    job.events.log(f"{len(prepared.train)} training rows, {len(prepared.val)} validation rows")
    job.events.stage("train")
    trainer = train_to_end(
        job, options.batch_size, lambda accumulation: build_trainer(job, options, prepared, accumulation)
    )
    job.events.stage("save")
    loss = validate(trainer, prepared.val, options.batch_size)
    job.events.metric(trainer.state.global_step, "val_loss", loss)
    base = prepared.start.base
    save_part(trainer.model, base, job.run_dir / "part", options.max_tokens)
    complete_run(job, base, {"val_loss": loss}, steps=trainer.state.global_step, started=started)


if __name__ == "__main__":
    sys.exit(run_job(main, "Fine-tune the LLM arm."))
