"""Reinforcement learning from verdicts in label space: PPO on the BERT or the LLM arm without generating anything.

    python -m training.jobs.label_ppo --run-dir DIR

Reads DIR/config.json, DIR/data/rewards.jsonl (what verdicts said of single answers) and DIR/data/train.jsonl (labelled
rows, learned again so that nothing is forgotten); writes DIR/events.jsonl, checkpoints, DIR/part (the part folder of a
bundle) and DIR/manifest.json last. The same command goes on from the last complete checkpoint. A tenth of the verdicts
is held out; the weights that do best on it are kept, those of the start included.

A round: the policy is asked about a batch of texts, then makes `ppo_epochs` steps on it. The maths is in ppo_math.py.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from classifier.schema import load_schema
from training.corpus.preferences import REWARDS_FILE, RewardRow, read_preferences
from training.corpus.rows import Row
from training.jobs.checkpoints import trainable
from training.jobs.config import ConfigError, LabelPpoOptions
from training.jobs.label_policy import Item, Policy, build_policy
from training.jobs.llm_training import (
    LOSS_POINTS,
    JobCallback,
    complete_run,
    last_checkpoint,
    limit_threads,
    train_to_end,
)
from training.jobs.ppo_math import RewardForm, center, clip_surrogate, diverge, judge_policy, shape_rewards
from training.jobs.reporting import choose_trackers
from training.jobs.rounds import PolicyData, RoundSampler, Shape, score_items, split_held_out
from training.jobs.runtime import Job, run_job, tidy_adapter
from training.jobs.start import find_start
from training.jobs.targets import batch_loss

WEIGHTS_NAME = "weights.safetensors"
SHOWN = {
    "reward": "reward",
    "kl": "kl",
    "clip_share": "clip_share",
    "replay_loss": "replay_loss",
    "eval_reward": "held_out_reward",
    "eval_objective": "held_out_objective",
}
"""What the trainer logs -> what the run shows."""


class LabelPpoTrainer(Trainer):
    """Checkpoints hold the trained weights alone: the frozen ones are the base model's."""

    policy: Policy
    data: PolicyData
    options: LabelPpoOptions
    shape: Shape
    form: RewardForm

    def open(self, policy: Policy, data: PolicyData, options: LabelPpoOptions, shape: Shape) -> None:
        self.policy, self.data, self.options, self.shape = policy, data, options, shape
        self.form = read_form(options)
        self._sums: dict[str, float] = {}
        # The loss is scaled here, by numbers that do not depend on how a batch is cut.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> RoundSampler:
        batch_size = min(self.options.batch_size, self.data.verdicts)
        return RoundSampler(self.data, self.shape, batch_size, self.options.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        at = inputs["index"].cpu()
        log_p = self.policy.score(model, inputs)
        if self.state.global_step % self.shape.steps == 0:
            self.data.remember(at, log_p)
        loss = self._loss(log_p, at, inputs["index"].device)
        return (loss, {"loss": loss.detach()}) if return_outputs else loss

    def _loss(self, log_p: Mapping[str, Tensor], at: Tensor, device: torch.device) -> Tensor:
        """- surrogate, per known slot of a verdict, + KL, per slot of any row, + cross-entropy, per label replayed.

        The divisors are those of a whole step. The trainer averages micro-batches and processes, hence `parts`.
        """
        options, slots = self.options, self.data.take(at, device)
        gain = kl = torch.zeros((), device=device)
        loss: Tensor
        reward = held = weight = 0.0
        for name, slot in slots.items():
            p_old = slot.old.exp()
            rewards = shape_rewards(p_old, slot.rewards, slot.known, self.form)
            clipped = clip_surrogate(log_p[name], slot.old, center(p_old, rewards), options.clip_range)
            gain = gain + (clipped.objective * slot.weight).sum()
            kl = kl + diverge(log_p[name], slot.reference).sum()
            value = judge_policy(log_p[name].detach(), slot.rewards, slot.known, "cost")
            reward += float((value * slot.weight).sum())
            held += float((clipped.share * slot.weight).sum())
            weight += float(slot.weight.sum())
        replay = batch_loss(log_p, {name: slot.targets for name, slot in slots.items()})
        replay = replay / max(self.shape.replayed * self.data.label_weight, 1e-9)
        gain = gain / max(self.shape.verdicts * self.data.slot_weight, 1e-9)
        kl = kl / (self.shape.rows * len(slots))
        self._note(reward=reward, clip_share=held, weight=weight, kl=kl.item(), replay_loss=replay.item())
        parts = self.args.gradient_accumulation_steps * self.args.world_size
        loss = parts * (options.kl_coef * kl + options.replay_weight * replay - gain)
        return loss

    def _note(self, **values: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums["passes"] = self._sums.get("passes", 0.0) + 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._sums:
            sums, self._sums = self._sums, {}
            steps = sums["passes"] / self.args.gradient_accumulation_steps
            logs = {
                **logs,
                "reward": sums["reward"] / max(sums["weight"], 1e-9),
                "clip_share": sums["clip_share"] / max(sums["weight"], 1e-9),
                "kl": sums["kl"] * self.args.world_size / steps,
                "replay_loss": sums["replay_loss"] * self.args.world_size / steps,
            }
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        at = self.data.held_out
        log_p = score_items(self.policy, [self.data.items[index] for index in at.tolist()])
        figures = judge_held_out(self.data, log_p, self.form)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(copy_weights(self.policy.model), folder / WEIGHTS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore_weights(self.policy.model, load_file(Path(resume_from_checkpoint) / WEIGHTS_NAME))


def read_form(options: LabelPpoOptions) -> RewardForm:
    return "cost" if options.reward == "cost" else "brier"


def judge_held_out(data: PolicyData, log_p: Mapping[str, Tensor], form: RewardForm) -> dict[str, float]:
    """`reward` as the verdicts give it, `objective` as the policy is trained on it: means over known slots."""
    slots = data.take(data.held_out, torch.device("cpu"))
    weight = max(sum(float(slot.weight.sum()) for slot in slots.values()), 1e-9)

    def mean(kind: RewardForm) -> float:
        rows = (
            (judge_policy(log_p[name], slot.rewards, slot.known, kind) * slot.weight).sum()
            for name, slot in slots.items()
        )
        return float(sum(rows)) / weight

    return {"reward": mean("cost"), "objective": mean(form)}


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone().contiguous() for name, weight in trainable(model).items()}


@torch.no_grad()
def restore_weights(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, weight in trainable(model).items():
        weight.copy_(saved[name])


class RoundCallback(JobCallback):
    """It stops at the end of a round only: within one, the old policy is in memory alone."""

    def __init__(self, job: Job, options: LabelPpoOptions, objective_before: float | None) -> None:
        super().__init__(job, SHOWN)
        self.options, self.objective_before = options, objective_before

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.job.events.progress("train", state.global_step, state.max_steps)
        if self.job.stop.is_set and state.global_step % self.options.ppo_epochs == 0:
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The history travels with the checkpoint, so a resumed run counts on.
        found = [self.objective_before] + [row.get("eval_objective") for row in state.log_history]
        values = [value for value in found if value is not None]
        stale = len(values) - 1 - values.index(max(values))
        if self.options.patience and stale >= self.options.patience:
            self.job.events.log(f"{stale} evaluations without a better held-out reward: training ends here")
            control.should_training_stop = True


def collate_items(policy: Policy, items: Sequence[Item]) -> dict[str, Tensor]:
    return {**policy.collate(items), "index": torch.tensor([item["index"] for item in items])}


def prepare(job: Job, options: LabelPpoOptions, policy: Policy) -> PolicyData:
    rows = read_rewards(job)
    train, held_out = split_held_out(rows)
    if not train:
        # So few verdicts that all fell on the held-out side: they teach, and nothing judges.
        train, held_out = rows, []
    replay = choose_replay(job.rows("train"), options.replay_rows) if options.replay_weight else []
    data = PolicyData.build(policy, load_schema(), train, replay, held_out)
    job.events.log(f"{len(train)} verdicts to learn from, {len(held_out)} held out, {len(replay)} rows to learn again")
    return data


def read_rewards(job: Job) -> list[RewardRow]:
    """Rows with at least one known reward. Raises ConfigError where there is none."""
    path = job.run_dir / "data" / REWARDS_FILE
    rows = [row for row in read_preferences(path, RewardRow) if any(row.rewards.values())]
    if not rows:
        raise ConfigError(
            f"{path} has no rows: label_ppo learns from verdicts on the model's answers, and this snapshot holds none. "
            "Collect some, or train on labelled rows with bert or sft"
        )
    return rows


def choose_replay(rows: list[Row], limit: int) -> list[Row]:
    """By id, which is a hash and so a fair sample. A row without a label teaches nothing."""
    ordered = sorted((row for row in rows if row.labels), key=lambda row: row.id)
    return ordered[:limit] if limit else ordered


def build_trainer(
    job: Job, options: LabelPpoOptions, policy: Policy, data: PolicyData, accumulation: int, before: float | None
) -> LabelPpoTrainer:
    """A step's rows in `accumulation` parts."""
    on_gpu = torch.cuda.is_available()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    shape = Shape.fit(data, batch_size=options.batch_size, steps=options.ppo_epochs, parts=accumulation * world)
    epoch_steps = -(-data.verdicts // min(options.batch_size, data.verdicts)) * shape.steps
    total = epoch_steps * options.epochs
    # Between rounds alone can a run be saved and resumed without a trace.
    every = min(-(-options.checkpoint_steps // shape.steps) * shape.steps, epoch_steps)
    trainer = LabelPpoTrainer(
        model=policy.model,
        args=TrainingArguments(
            output_dir=str(job.run_dir / "checkpoints"),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=shape.rows // (accumulation * world),
            gradient_accumulation_steps=accumulation,
            learning_rate=options.learning_rate * policy.rate_share,
            lr_scheduler_type="cosine",
            warmup_steps=int(total * options.warmup_share),
            weight_decay=options.weight_decay,
            max_grad_norm=options.clip_norm,
            seed=options.seed,
            bf16=on_gpu,
            eval_strategy="steps" if len(data.held_out) else "no",
            eval_steps=every,
            metric_for_best_model="objective",
            greater_is_better=True,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            logging_steps=-(-max(1, total // LOSS_POINTS) // shape.steps) * shape.steps,
            report_to=choose_trackers(options, job.run_dir),
            disable_tqdm=True,
            dataloader_pin_memory=on_gpu,
            remove_unused_columns=False,
        ),
        train_dataset=data.items,
        eval_dataset=[data.items[index] for index in data.held_out.tolist()] or None,
        data_collator=lambda items: collate_items(policy, items),
        callbacks=[RoundCallback(job, options, before)],
    )
    trainer.open(policy, data, options, shape)
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(
    job: Job, options: LabelPpoOptions, policy: Policy, data: PolicyData, before: float | None
) -> LabelPpoTrainer:
    """Raises Stopped."""
    start = copy_weights(policy.model)

    def build(accumulation: int) -> LabelPpoTrainer:
        restore_weights(policy.model, start)
        checkpoint = last_checkpoint(job.run_dir)
        if checkpoint:
            job.events.log(f"going on from step {checkpoint.name.rpartition('-')[2]}")
        return build_trainer(job, options, policy, data, accumulation, before)

    trainer: LabelPpoTrainer = train_to_end(job, options.batch_size, build)
    return trainer


def keep_best(job: Job, trainer: LabelPpoTrainer, start: Mapping[str, Tensor], before: float | None) -> None:
    """Put the weights that did best on the held-out verdicts into the policy."""
    state, model = trainer.state, trainer.policy.model
    if before is None or state.best_metric is None:
        return
    if state.best_metric <= before:
        job.events.log("no step raised the held-out reward: the weights stay as they were")
        restore_weights(model, start)
    elif state.best_model_checkpoint:
        restore_weights(model, load_file(Path(state.best_model_checkpoint) / WEIGHTS_NAME))


def main(job: Job) -> None:
    options = job.config.options
    if not isinstance(options, LabelPpoOptions):
        raise ConfigError(f"this is a {job.config.kind} run, not label_ppo")
    if job.is_complete:
        return
    started = time.monotonic()
    limit_threads()
    job.events.stage("prepare")
    read_rewards(job)  # refused before a model is loaded
    start = find_start(job.config)
    if start.part is None:
        job.events.log("the policy starts untrained: verdicts alone teach slowly, train it on labelled rows first")
    torch.manual_seed(options.seed)
    policy = build_policy(start, options, job.config.serving_bundle)
    data, weights = prepare(job, options, policy), copy_weights(policy.model)
    judged = len(data.held_out) > 0
    form = read_form(options)
    reference = {name: slot.reference[data.held_out] for name, slot in data.slots.items()}
    before = judge_held_out(data, reference, form) if judged else None
    job.events.stage("train")
    trainer = train(job, options, policy, data, before["objective"] if before else None)
    keep_best(job, trainer, weights, before["objective"] if before else None)
    job.events.stage("save")
    metrics: dict[str, object] = {"verdicts": data.verdicts, "held_out_verdicts": len(data.held_out)}
    if before:
        log_p = score_items(policy, [data.items[index] for index in data.held_out.tolist()])
        after = judge_held_out(data, log_p, form)
        kl = sum(float(diverge(log_p[name], reference[name]).mean()) for name in log_p) / len(log_p)
        metrics |= {f"held_out_{name}": {"before": before[name], "after": after[name]} for name in before}
        metrics["held_out_kl"] = kl
    policy.save(job.run_dir / "part")
    tidy_adapter(job.run_dir / "part", start.base)
    complete_run(job, start.base, metrics, steps=trainer.state.global_step, started=started)


if __name__ == "__main__":
    sys.exit(run_job(main, "Reinforcement learning from verdicts in label space."))
