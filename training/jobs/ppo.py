"""The classic: the LLM writes label lines, a reward model judges them, PPO makes the better ones likelier.

    python -m training.jobs.ppo --run-dir DIR

Reads DIR/config.json, which names a complete reward run, and the texts in DIR/data; writes DIR/events.jsonl, DIR/part
(the part folder of a bundle) and DIR/manifest.json last. trl's PPOTrainer keeps no checkpoint: the same command starts
afresh from the policy saved last, with a new optimiser and a new value model, for the updates that are left.

Policy and reference: the serving adapter, or the one of an earlier stage, after it was taught to write label lines by
itself. Value model: the reward model, trained on. The four share the frozen weights of one base model.
"""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl.experimental.utils import get_reward

from classifier.llm_prompt import LabelPrompt
from training.corpus.preferences import (
    KTO_FILE,
    PAIRS_FILE,
    REWARDS_FILE,
    KtoRow,
    PairRow,
    RewardRow,
    read_preferences,
)
from training.jobs.config import ConfigError, PpoOptions, read_json, write_json
from training.jobs.line_form import teach_form
from training.jobs.llm_training import (
    ADAPTER,
    MARKER,
    JobCallback,
    answer_texts,
    build_prompt,
    common_arguments,
    complete_run,
    last_checkpoint,
    limit_threads,
    load_model,
    save_part,
)
from training.jobs.reward_model import LineReward, find_reward_part, list_lines, load_reward_part
from training.jobs.rounds import is_held_out
from training.jobs.runtime import Job, Stopped, run_job
from training.jobs.start import Start, find_start

REFERENCE = "ref"
JUDGED_TEXTS = 64
JUDGED_ROWS = 8
STATE_NAME = "state.json"
SHOWN = {
    "objective/scores": "reward",
    "objective/kl": "kl",
    "loss/policy_avg": "loss",
    "loss/value_avg": "value_loss",
    "policy/clipfrac_avg": "clip_share",
}


@dataclass(frozen=True, slots=True)
class LineTokens:
    """All that PPOTrainer wants to know of a tokenizer."""

    eos_token_id: int
    pad_token_id: int


@dataclass(frozen=True, slots=True)
class Prepared:
    start: Start
    reward: Path
    prompt: LabelPrompt
    texts: list[str]
    held_out: list[str]
    pad: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The policy that was saved last. `before`: its start's reward on held-out texts; None without any."""

    folder: Path | None = None
    step: int = 0
    before: float | None = None

    @classmethod
    def find(cls, run_dir: Path) -> "Saved":
        folder = last_checkpoint(run_dir)
        return cls(folder, **read_json(folder / STATE_NAME)) if folder else cls()


class PpoCallback(JobCallback):
    """trl's loop asks neither whether to save nor whether to stop: both are done here."""

    def __init__(self, job: Job, reward: LineReward, saved: Saved, every: int) -> None:
        super().__init__(job, SHOWN)
        self.reward, self.done, self.before, self.every = reward, saved.step, saved.before, every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        step, total = self.done + state.global_step, self.done + state.max_steps
        self.job.events.progress("train", step, total)
        if step < total and (self.job.stop.is_set or step % self.every == 0):
            save_policy(model.policy, self.job.run_dir, Saved(None, step, self.before))
            if self.job.stop.is_set:
                raise Stopped

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        well_formed = self.reward.take_well_formed()
        shown = {name: value for name, value in (logs or {}).items() if name in self.shown}
        for name, value in shown.items():
            self.job.events.metric(self.done + state.global_step, self.shown[name], float(value))
        if well_formed is not None:
            self.job.events.metric(self.done + state.global_step, "well_formed", well_formed)


def save_policy(policy: Any, run_dir: Path, state: Saved) -> None:
    """Written beside and renamed; the one before it goes."""
    folder = run_dir / "checkpoints"
    part, target = folder / ".part", folder / f"checkpoint-{state.step}"
    shutil.rmtree(part, ignore_errors=True)
    policy.save_pretrained(part, selected_adapters=[ADAPTER])
    write_json(part / STATE_NAME, {"step": state.step, "before": state.before})
    (part / MARKER).touch()
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in folder.glob("checkpoint-*"):
        if old != target:
            shutil.rmtree(old)


def prepare(job: Job, options: PpoOptions) -> Prepared:
    check_batch(options)
    start = find_start(job.config)
    bundle = job.config.serving_bundle
    reward = find_reward_part(job.config.reward_model, start, bundle)
    if start.part is None:
        job.events.log("the policy starts untrained and will hardly write a label line: train it by sft first")
    texts = list_texts(job)
    train = [text for text in texts if not is_held_out(text)][: options.max_rows or None]
    if len(train) < options.batch_size:
        raise ConfigError(f"batch_size is {options.batch_size}, but there are {len(train)} texts: lower it")
    held_out = [text for text in texts if is_held_out(text)][:JUDGED_TEXTS]
    prompt = build_prompt(start, bundle)
    return Prepared(start, reward, prompt, train, held_out, find_unused(prompt, train + held_out, options.max_tokens))


def find_unused(prompt: LabelPrompt, texts: Sequence[str], max_tokens: int) -> int:
    """A token that neither a prompt nor a label line has in it, to pad with.

    trl takes every token that equals the padding for padding, also within a prompt: with the end of turn, which many
    models pad with, the policy would be asked another prompt than it is served.
    """
    used = {token for line in list_lines(prompt) for token in line}
    used.update(token for text in texts for token in prompt.encode_prompt(text, max_tokens))
    return next(token for token in range(len(prompt.tokenizer)) if token not in used)


def check_batch(options: PpoOptions) -> None:
    if options.batch_size % options.mini_batches:
        raise ConfigError(
            f"batch_size {options.batch_size} cannot be cut into {options.mini_batches} mini_batches of one size: "
            "let one be a multiple of the other"
        )
    if options.batch_size == options.mini_batches:
        raise ConfigError("a mini batch must have two rows or more, for advantages are scaled by their spread")


def list_texts(job: Job) -> list[str]:
    """Those with verdicts first, then those of the training rows, by id, which is a hash and so a fair sample."""
    data = job.run_dir / "data"
    told = [row.text for row in read_preferences(data / PAIRS_FILE, PairRow)]
    told += [row.text for row in read_preferences(data / KTO_FILE, KtoRow)]
    told += [row.text for row in read_preferences(data / REWARDS_FILE, RewardRow)]
    labelled = [row.text for row in sorted(job.rows("train"), key=lambda row: row.id)]
    return list(dict.fromkeys(told + labelled))


def find_reference(job: Job, options: PpoOptions, prepared: Prepared) -> Path:
    """What the policy starts from and stays close to: the arm as it serves, taught to write its lines by itself."""
    folder = job.run_dir / "checkpoints" / REFERENCE
    if not (folder / MARKER).is_file():
        set_seed(options.seed)
        policy = load_model(prepared.start, options)
        if torch.cuda.is_available() and not options.quantise:
            policy.to("cuda")
        if options.form_steps:
            job.events.stage("learn the form")
            teach_form(job, policy, prepared.prompt, prepared.texts, options)
        shutil.rmtree(folder, ignore_errors=True)
        policy.save_pretrained(folder, selected_adapters=[ADAPTER])
        (folder / MARKER).touch()
    return folder


def load_policy(prepared: Prepared, options: PpoOptions, reference: Path, saved: Saved) -> Any:
    policy = load_model(Start(prepared.start.base, saved.folder or reference), options)
    policy.load_adapter(str(reference), REFERENCE, is_trainable=False)
    policy.set_adapter(ADAPTER)
    return policy


def share_frozen(target: nn.Module, source: nn.Module) -> None:
    """Let `target` use the frozen base weights of `source` in place of its own copies of them."""

    def plain(name: str) -> str:
        return name.removeprefix("base_model.model.").replace(".base_layer", "")

    weights = {plain(name): weight for name, weight in source.named_parameters() if ".lora_" not in name}
    for name, weight in list(target.named_parameters()):
        twin = weights.get(plain(name))
        if twin is not None and not weight.requires_grad and not twin.requires_grad:
            module, _, leaf = name.rpartition(".")
            setattr(target.get_submodule(module), leaf, twin)


def build_trainer(job: Job, options: PpoOptions, prepared: Prepared, rows_at_once: int, saved: Saved) -> Any:
    prompt, base = prepared.prompt, prepared.start.base
    policy = load_policy(prepared, options, find_reference(job, options, prepared), saved)
    set_seed(options.seed + saved.step)
    scorer = load_reward_part(prepared.reward, base, options, prepared.pad, is_trainable=False)
    value = load_reward_part(prepared.reward, base, options, prepared.pad, is_trainable=True)
    for model in (scorer, value):
        share_frozen(model, policy)
    reward = LineReward(scorer, prompt, options.malformed_penalty).requires_grad_(False).eval()
    updates = count_updates(options, prepared)
    # It takes less than its annotations ask for: a reward of our own, two ids in place of a tokenizer.
    make_trainer: Any = PPOTrainer
    trainer = make_trainer(
        args=configure(job, options, prepared, rows_at_once, left=updates - saved.step, total=updates),
        processing_class=LineTokens(prompt.eos, prepared.pad),
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list(
            [{"input_ids": prompt.encode_prompt(text, options.max_tokens)} for text in prepared.texts]
        ),
        data_collator=QueryCollator(prepared.pad),
        callbacks=[PpoCallback(job, reward, saved, options.checkpoint_steps)],
    )
    trainer.remove_callback(PrinterCallback)
    step_once_a_mini_batch(trainer, options.batch_size // options.mini_batches // rows_at_once)
    return trainer


def count_updates(options: PpoOptions, prepared: Prepared) -> int:
    return max(1, options.epochs * len(prepared.texts) // options.batch_size)


def configure(
    job: Job, options: PpoOptions, prepared: Prepared, rows_at_once: int, *, left: int, total: int
) -> PPOConfig:
    parts = options.batch_size // rows_at_once
    arguments = common_arguments(job, options, len(prepared.texts), parts) | {
        # Straight to zero, from where a run that started again would have got to.
        "learning_rate": options.learning_rate * left / total,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "save_strategy": "no",
    }
    return PPOConfig(
        **arguments,
        total_episodes=left * options.batch_size,
        num_mini_batches=options.mini_batches,
        num_ppo_epochs=options.ppo_epochs,
        local_rollout_forward_batch_size=rows_at_once,
        num_sample_generations=0,
        response_length=max(map(len, list_lines(prepared.prompt))),
        stop_token="eos",
        temperature=options.temperature,
        kl_coef=options.kl_coef,
        cliprange=options.clip_range,
        model_adapter_name=ADAPTER,
        ref_adapter_name=REFERENCE,
    )


def step_once_a_mini_batch(trainer: Any, parts: int) -> None:
    """trl accumulates over the whole batch, however many mini batches it has, and steps at every part of a pass's last.

    The first makes `mini_batches` meaningless as soon as a mini batch has parts, the second makes one batch an epoch
    count many times.
    """
    trainer.accelerator.gradient_state.plugin_kwargs.update(num_steps=parts, sync_with_dataloader=False)
    # The shape of its statistics: with the parts of the whole batch their means would be thinned by zeros.
    trainer.args.gradient_accumulation_steps = parts


@dataclass(frozen=True, slots=True)
class QueryCollator:
    pad: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`input_ids` `[B, T]`, padded on the left: answers begin in one column."""
        longest = max(len(row["input_ids"]) for row in rows)
        ids = [[*[self.pad] * (longest - len(row["input_ids"])), *row["input_ids"]] for row in rows]
        return {"input_ids": torch.tensor(ids)}


def train(job: Job, options: PpoOptions, prepared: Prepared) -> tuple[Any, float | None]:
    """The trained trainer, and what the start's answers to the held-out texts earned. Raises Stopped."""
    rows_at_once = size = options.batch_size // options.mini_batches
    while True:
        saved = Saved.find(job.run_dir)
        if saved.folder is not None:
            job.events.log(f"PPO cannot resume: it starts again from the policy saved after update {saved.step}")
        trainer = build_trainer(job, options, prepared, rows_at_once, saved)
        job.events.stage("train")
        callback = next(item for item in trainer.callback_handler.callbacks if isinstance(item, PpoCallback))
        if saved.folder is None:
            callback.before = judge_answers(trainer, options, prepared)
        try:
            trainer.train()
        except torch.OutOfMemoryError:
            if rows_at_once == 1:
                raise ConfigError("out of memory with one row at a time: lower max_tokens, or quantise") from None
            rows_at_once = max(part for part in range(1, rows_at_once // 2 + 1) if size % part == 0)
            job.events.log(f"out of memory: {rows_at_once} rows at a time from here on")
        else:
            return trainer, callback.before
        # Outside the handler: the exception would keep the tensors of the failed pass alive.
        del trainer, callback
        torch.cuda.empty_cache()


@torch.inference_mode()
def judge_answers(trainer: Any, options: PpoOptions, prepared: Prepared) -> float | None:
    """Mean reward of the lines that the policy would serve for the held-out texts; None without any."""
    texts, prompt = prepared.held_out, prepared.prompt
    if not texts:
        return None
    answers = answer_texts(trainer.policy_model, prompt, texts, options.max_tokens)
    rows = [
        {"input_ids": prompt.encode_prompt(text, options.max_tokens) + prompt.encode_line(answer)}
        for text, answer in zip(texts, answers, strict=True)
    ]
    total = 0.0
    for at in range(0, len(rows), JUDGED_ROWS):
        ids = trainer.data_collator(rows[at : at + JUDGED_ROWS])["input_ids"].to(trainer.accelerator.device)
        _, rewards, _ = get_reward(trainer.reward_model, ids, prepared.pad, ids.shape[1] - 1)
        total += float(rewards.sum())
    trainer.reward_model.take_well_formed()
    return total / len(rows)


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, PpoOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not ppo")
    if job.is_complete:
        return
    started = time.monotonic()
    limit_threads()
    job.events.stage("prepare")
    prepared = prepare(job, options)
    job.events.log(f"{len(prepared.texts)} texts to answer, {len(prepared.held_out)} held out")
    trainer, before = train(job, options, prepared)
    job.events.stage("save")
    after, updates = judge_answers(trainer, options, prepared), count_updates(options, prepared)
    metrics: dict[str, object] = {"texts": len(prepared.texts), "held_out_texts": len(prepared.held_out)}
    if before is not None and after is not None:
        job.events.metric(updates, "held_out_reward", after)
        metrics["held_out_reward"] = {"before": before, "after": after}
    save_part(trainer.policy_model, prepared.start.base, job.run_dir / "part", options.max_tokens)
    complete_run(job, prepared.start.base, metrics, steps=updates, started=started)


if __name__ == "__main__":
    sys.exit(run_job(main, "PPO on the LLM arm with a reward model."))
