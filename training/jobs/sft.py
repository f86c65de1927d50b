"""Fine-tune the LLM arm: LoRA (or QLoRA) with trl's SFTTrainer, loss on the label slots.

    python -m training.jobs.sft --run-dir DIR

Reads DIR/config.json and DIR/data/{train,val}.jsonl; writes DIR/events.jsonl, checkpoints, DIR/part (the part folder of
a bundle) and DIR/manifest.json last. The same command goes on from the last complete checkpoint.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DynamicCache,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from classifier.base_models import weights_sha256
from classifier.bundle import PROMPT_PATH
from classifier.llm import MAX_TOKENS
from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from training.corpus.rows import Row
from training.jobs.config import ConfigError, SftOptions
from training.jobs.label_lines import LineCollator, LineRow, encode_lines, line_loss
from training.jobs.runtime import Job, Stopped, hash_folder, run_job, tidy_adapter
from training.jobs.start import Start, find_start

MARKER = "COMPLETE"
LOSS_POINTS = 200


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


class JobCallback(TrainerCallback):
    """Between trl and the job: progress and loss out, stop in, a marker on each complete checkpoint."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.job.events.progress("train", state.global_step, state.max_steps)
        if self.job.stop.is_set:
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.job.events.metric(state.global_step, "loss", float(logs["loss"]))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        (self.job.run_dir / "checkpoints" / f"checkpoint-{state.global_step}" / MARKER).touch()


@dataclass(frozen=True, slots=True)
class Prepared:
    start: Start
    prompt: LabelPrompt
    train: list[LineRow]
    val: list[LineRow]


def prepare(job: Job, options: SftOptions) -> Prepared:
    start = find_start(job.config)
    tokenizer = AutoTokenizer.from_pretrained(start.base, local_files_only=True)
    bundle = job.config.serving_bundle
    system = (bundle / "prompt.txt" if bundle else PROMPT_PATH).read_text(encoding="utf-8")
    prompt = LabelPrompt.build(tokenizer, load_schema(), system)
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


def load_model(start: Start, options: SftOptions) -> Any:
    """The base model with an adapter to train: fresh, or the one of an earlier part."""
    on_gpu = torch.cuda.is_available()
    extra: dict[str, Any] = {"dtype": torch.bfloat16 if on_gpu else torch.float32}
    if options.quantise:
        extra["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=options.quantise == "8bit",
            load_in_4bit=options.quantise == "4bit",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_quant_type="nf4",
        )
    model = AutoModelForCausalLM.from_pretrained(
        start.base, local_files_only=True, use_safetensors=True, attn_implementation="sdpa", **extra
    )
    if start.part is not None and (start.part / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(model, str(start.part), is_trainable=True)
    lora = LoraConfig(
        r=options.lora_rank,
        lora_alpha=2 * options.lora_rank,
        # A dropout inside the adapters costs a copy of every activation: a tenth of the step.
        lora_dropout=0.0,
        target_modules="all-linear",
        exclude_modules=name_lower_layers(model.config.num_hidden_layers, options.lora_layers),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def name_lower_layers(layers: int, adapted: int) -> str | None:
    """Pattern of the module names below the uppermost `adapted` layers; None where all are adapted (0)."""
    if not 0 < adapted < layers:
        return None
    lower = "|".join(str(index) for index in range(layers - adapted))
    return rf".*\.layers\.({lower})\..*"


def build_trainer(job: Job, options: SftOptions, prepared: Prepared, accumulation: int) -> LabelTrainer:
    """A batch of `batch_size` rows in `accumulation` parts."""
    steps = -(-len(prepared.train) // options.batch_size) * options.epochs
    tokenizer = prepared.prompt.tokenizer
    torch.manual_seed(options.seed)
    trainer = LabelTrainer(
        model=load_model(prepared.start, options),
        args=SFTConfig(
            output_dir=str(job.run_dir / "checkpoints"),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=-(-options.batch_size // accumulation),
            gradient_accumulation_steps=accumulation,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=int(steps * options.warmup_share),
            weight_decay=options.weight_decay,
            max_grad_norm=options.clip_norm,
            seed=options.seed,
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=options.gradient_checkpointing,
            train_sampling_strategy="group_by_length",
            length_column_name="length",
            save_strategy="steps",
            save_steps=options.checkpoint_steps,
            save_total_limit=2,
            logging_steps=max(1, steps // LOSS_POINTS),
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            # The rows are tokens already, the very ones that serving reads.
            dataset_kwargs={"skip_prepare_dataset": True},
            loss_type="nll",
        ),
        train_dataset=Dataset.from_list([row.as_dict() for row in prepared.train]),
        data_collator=LineCollator(prepared.prompt.eos),
        processing_class=tokenizer,
        callbacks=[JobCallback(job)],
    )
    trainer.prefix = prepared.prompt.prefix
    # The loss is a mean already: the parts of a batch are averaged, not summed.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(job: Job, options: SftOptions, prepared: Prepared) -> LabelTrainer:
    """Out of memory: half the rows at a time, the same batch. Raises Stopped."""
    accumulation = 1
    while True:
        trainer = build_trainer(job, options, prepared, accumulation)
        checkpoint = last_checkpoint(job.run_dir)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError:
            if accumulation >= options.batch_size:
                raise ConfigError("out of memory with one row at a time: lower max_tokens, or quantise") from None
            accumulation *= 2
            job.events.log(f"out of memory: {-(-options.batch_size // accumulation)} rows at a time from here on")
        else:
            if job.stop.is_set and trainer.state.global_step < trainer.state.max_steps:
                raise Stopped
            return trainer
        # Outside the handler: the exception would keep the tensors of the failed pass alive.
        del trainer
        torch.cuda.empty_cache()


def last_checkpoint(run_dir: Path) -> Path | None:
    complete = [path for path in (run_dir / "checkpoints").glob("checkpoint-*") if (path / MARKER).is_file()]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


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


def save_part(model: Any, base: Path, folder: Path, max_tokens: int) -> None:
    """Adapter in float16, half the size: its rounding is far below what a label's probability shows."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: row.half().contiguous() for name, row in weights.items()}, folder / "adapter_model.safetensors")
    tidy_adapter(folder, base)
    settings = {"max_tokens": max(MAX_TOKENS, max_tokens)}
    (folder / "llm.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, SftOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not sft")
    if job.is_complete:
        return
    started = time.monotonic()
    torch.set_num_threads(int(os.environ.get("HEED_THREADS") or os.cpu_count() or 1))
    job.events.stage("prepare")
    prepared = prepare(job, options)
    job.events.log(f"{len(prepared.train)} training rows, {len(prepared.val)} validation rows")
    job.events.stage("train")
    trainer = train(job, options, prepared)
    job.events.stage("save")
    loss = validate(trainer, prepared.val, options.batch_size)
    job.events.metric(trainer.state.global_step, "val_loss", loss)
    base = prepared.start.base
    save_part(trainer.model, base, job.run_dir / "part", options.max_tokens)
    job.complete(
        {
            "arm": "llm",
            "base": base.name,
            "base_sha256": weights_sha256(base, trust_manifest=True),
            "content_hash": hash_folder(job.run_dir / "part"),
            "metrics": {"val_loss": loss},
            "options": asdict(options),
            "seconds": round(time.monotonic() - started, 1),
            "steps": trainer.state.global_step,
        }
    )


if __name__ == "__main__":
    sys.exit(run_job(main, "Fine-tune the LLM arm."))
