"""What the jobs on the LLM arm share: the model with its adapter, the trainer's way to the job, the part they write."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from classifier.base_models import weights_sha256
from classifier.bundle import PROMPT_PATH
from classifier.llm import MAX_TOKENS, LlmArm
from classifier.llm_prompt import LabelPrompt
from classifier.schema import load_schema
from training.jobs.config import ConfigError, LlmOptions
from training.jobs.reporting import choose_trackers
from training.jobs.runtime import Job, Stopped, hash_folder, tidy_adapter
from training.jobs.start import Start

MARKER = "COMPLETE"
LOSS_POINTS = 200
ADAPTER = "default"
WEIGHTS_NAME = "adapter_model.safetensors"


class JobCallback(TrainerCallback):
    """Between trl and the job: progress and figures out, stop in, a marker on each complete checkpoint.

    `shown` maps what the trainer logs to the names under which the run shows it.
    """

    def __init__(self, job: Job, shown: Mapping[str, str] | None = None) -> None:
        self.job = job
        self.shown = {"loss": "loss", **(shown or {})}

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
        for name, value in (logs or {}).items():
            if name in self.shown:
                self.job.events.metric(state.global_step, self.shown[name], float(value))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        (self.job.run_dir / "checkpoints" / f"checkpoint-{state.global_step}" / MARKER).touch()


def limit_threads() -> None:
    torch.set_num_threads(int(os.environ.get("HEED_THREADS") or os.cpu_count() or 1))


def read_system_prompt(bundle: Path | None) -> str:
    """That of the serving bundle, or the one a first bundle gets."""
    return (bundle / "prompt.txt" if bundle else PROMPT_PATH).read_text(encoding="utf-8")


def build_prompt(start: Start, bundle: Path | None) -> LabelPrompt:
    tokenizer = AutoTokenizer.from_pretrained(start.base, local_files_only=True)
    return LabelPrompt.build(tokenizer, load_schema(), read_system_prompt(bundle))


def model_settings(options: LlmOptions) -> dict[str, Any]:
    """What `from_pretrained` is told of a base model."""
    settings: dict[str, Any] = {
        "dtype": torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        "local_files_only": True,
        "use_safetensors": True,
        "attn_implementation": "sdpa",
    }
    if options.quantise:
        settings["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=options.quantise == "8bit",
            load_in_4bit=options.quantise == "4bit",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_quant_type="nf4",
        )
    return settings


def load_model(start: Start, options: LlmOptions) -> Any:
    """The base model with an adapter to train: fresh, or the one of an earlier part."""
    model = AutoModelForCausalLM.from_pretrained(start.base, **model_settings(options))
    if has_adapter(start.part):
        return PeftModel.from_pretrained(model, str(start.part), is_trainable=True)
    return get_peft_model(model, fresh_adapter(model, options, "CAUSAL_LM"))


def has_adapter(part: Path | None) -> bool:
    return part is not None and (part / "adapter_config.json").is_file()


def fresh_adapter(model: Any, options: LlmOptions, task_type: str) -> LoraConfig:
    return LoraConfig(
        r=options.lora_rank,
        lora_alpha=2 * options.lora_rank,
        # A dropout inside the adapters costs a copy of every activation: a tenth of the step.
        lora_dropout=0.0,
        target_modules="all-linear",
        exclude_modules=name_lower_layers(model.config.num_hidden_layers, options.lora_layers),
        task_type=task_type,
    )


def name_lower_layers(layers: int, adapted: int) -> str | None:
    """Pattern of the module names below the uppermost `adapted` layers; None where all are adapted (0)."""
    if not 0 < adapted < layers:
        return None
    lower = "|".join(str(index) for index in range(layers - adapted))
    return rf".*\.layers\.({lower})\..*"


def common_arguments(job: Job, options: LlmOptions, rows: int, accumulation: int) -> dict[str, Any]:
    """What the arguments of every trl trainer have in common. A batch of `batch_size` rows in `accumulation` parts."""
    steps = -(-rows // options.batch_size) * options.epochs
    return {
        "output_dir": str(job.run_dir / "checkpoints"),
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": -(-options.batch_size // accumulation),
        "gradient_accumulation_steps": accumulation,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": int(steps * options.warmup_share),
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.clip_norm,
        "seed": options.seed,
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": options.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": options.checkpoint_steps,
        "save_total_limit": 2,
        "logging_steps": max(1, steps // LOSS_POINTS),
        "report_to": choose_trackers(options, job.run_dir),
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }


def train_to_end(job: Job, batch_size: int, build: Callable[[int], Any]) -> Any:
    """The trained trainer. `build` makes one that takes a batch in so many parts. Raises Stopped.

    Out of memory: half the rows at a time, the same batch, from the last checkpoint.
    """
    accumulation = 1
    while True:
        trainer = build(accumulation)
        checkpoint = last_checkpoint(job.run_dir)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError:
            accumulation = halve_batch(job, batch_size, accumulation)
        else:
            if job.stop.is_set and trainer.state.global_step < trainer.state.max_steps:
                raise Stopped
            return trainer
        # Outside the handler: the exception would keep the tensors of the failed pass alive.
        del trainer
        torch.cuda.empty_cache()


def halve_batch(job: Job, batch_size: int, parts: int) -> int:
    """In so many parts from here on. Raises ConfigError where a part is one row already."""
    if parts >= batch_size:
        raise ConfigError("out of memory with one row at a time: lower max_tokens, or quantise") from None
    job.events.log(f"out of memory: {-(-batch_size // (2 * parts))} rows at a time from here on")
    return 2 * parts


def last_checkpoint(run_dir: Path) -> Path | None:
    complete = [path for path in (run_dir / "checkpoints").glob("checkpoint-*") if (path / MARKER).is_file()]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def answer_texts(model: Any, prompt: LabelPrompt, texts: Sequence[str], max_tokens: int) -> list[dict[str, str]]:
    """The label lines that the arm would serve, with the adapter that is active."""
    model.eval()
    arm = LlmArm(model, prompt, max_tokens=max_tokens)
    return [
        {name: max(row, key=row.__getitem__) for name, row in scores.probabilities.items()}
        for scores in arm.score(texts)
    ]


def save_adapter(model: Any, base: Path, folder: Path) -> None:
    """In float16, half the size: its rounding is far below what a label's probability shows."""
    shutil.rmtree(folder, ignore_errors=True)
    # trl keeps its reference as a second adapter of the same model.
    model.save_pretrained(folder, selected_adapters=[ADAPTER])
    weights = load_file(folder / WEIGHTS_NAME)
    save_file({name: row.half().contiguous() for name, row in weights.items()}, folder / WEIGHTS_NAME)
    tidy_adapter(folder, base)


def save_part(model: Any, base: Path, folder: Path, max_tokens: int) -> None:
    save_adapter(model, base, folder)
    settings = {"max_tokens": max(MAX_TOKENS, max_tokens)}
    (folder / "llm.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def complete_run(job: Job, base: Path, metrics: Mapping[str, object], *, steps: int, started: float) -> None:
    """The manifest of a run whose part is written. `started` by time.monotonic."""
    job.complete(
        {
            "arm": "reward" if job.config.kind == "reward" else job.config.arm,
            "base": base.name,
            "base_sha256": weights_sha256(base, trust_manifest=True),
            "content_hash": hash_folder(job.run_dir / "part"),
            "metrics": dict(metrics),
            "options": asdict(job.config.options),
            "seconds": round(time.monotonic() - started, 1),
            "steps": steps,
        }
    )
