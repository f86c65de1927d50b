"""The reward model: the LLM's base with an adapter and one score at the end of a label line.

Its part folder holds the adapter with the head (`adapter_*`) and `reward.json`. It is read by ppo runs and never
becomes part of a bundle.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from trl.trainer.reward_trainer import suppress_seqcls_warning

from classifier.base_models import weights_sha256
from classifier.llm_prompt import LabelPrompt
from training.jobs.config import ConfigError, LlmOptions, read_json, write_json
from training.jobs.llm_training import (
    WEIGHTS_NAME,
    fresh_adapter,
    has_adapter,
    model_settings,
    read_system_prompt,
    save_adapter,
)
from training.jobs.start import Start

SETTINGS_NAME = "reward.json"
HEAD = "score"


def choose_pad(prompt: LabelPrompt) -> int:
    """A token that no label line ends in."""
    return 0 if prompt.eos != 0 else 1


def load_scorer(base: Path, options: LlmOptions, pad: int) -> Any:
    """The base model with a fresh head for one score."""
    settings = {"num_labels": 1, "pad_token_id": pad, **model_settings(options)}
    # That the head is new and the language head unused is as it should be: nothing to warn people of in a run's log.
    with suppress_seqcls_warning():
        return AutoModelForSequenceClassification.from_pretrained(base, **settings)


def build_reward_model(start: Start, options: LlmOptions, pad: int) -> Any:
    """To train: a fresh head on the serving arm's adapter, which has read such texts before, or on a fresh one."""
    model = load_scorer(start.base, options, pad)
    if start.part is None or not has_adapter(start.part):
        return get_peft_model(model, fresh_adapter(model, options, "SEQ_CLS"))
    config = LoraConfig.from_pretrained(str(start.part))
    config.task_type, config.inference_mode = "SEQ_CLS", False
    adapted = get_peft_model(model, config)
    weights = {name: row.float() for name, row in load_file(start.part / WEIGHTS_NAME).items()}
    set_peft_model_state_dict(adapted, weights)
    return adapted


def save_reward_part(model: Any, start: Start, folder: Path, bundle: Path | None, max_tokens: int) -> None:
    save_adapter(model, start.base, folder)
    write_json(folder / SETTINGS_NAME, {"max_tokens": max_tokens, "prompt_sha256": hash_prompt(bundle)})


def hash_prompt(bundle: Path | None) -> str:
    return hashlib.sha256(read_system_prompt(bundle).encode()).hexdigest()


def find_reward_part(run_dir: Path | None, start: Start, bundle: Path | None) -> Path:
    """The part of a complete reward run that fits base model and prompt. Raises ConfigError."""
    if run_dir is None:
        raise ConfigError("config.json names no reward_model: finish a reward run first and give its folder")
    if not (run_dir / "manifest.json").is_file():
        raise ConfigError(f"{run_dir.name} is no complete reward run: it has no manifest.json")
    made = read_json(run_dir / "manifest.json")
    if made.get("arm") != "reward":
        raise ConfigError(f"{run_dir.name} is a {made.get('kind')} run, expected a reward run")
    if made["base_sha256"] != weights_sha256(start.base, trust_manifest=True):
        raise ConfigError(
            f"the reward model of {run_dir.name} stands on {made['base']}, the policy on another base model: "
            "train a reward model on this base"
        )
    if read_json(run_dir / "part" / SETTINGS_NAME)["prompt_sha256"] != hash_prompt(bundle):
        raise ConfigError(f"the reward model of {run_dir.name} was trained on another prompt: train a new one")
    return run_dir / "part"


def load_reward_part(part: Path, base: Path, options: LlmOptions, pad: int, *, is_trainable: bool) -> Any:
    """The scorer with its adapter inside. As a plain model, not a PeftModel: trl looks for its backbone by name."""
    adapted = PeftModel.from_pretrained(load_scorer(base, options, pad), str(part), is_trainable=is_trainable)
    return adapted.get_base_model()


class LineReward(nn.Module):
    """What trl's PPO takes for its reward model: the score of a label line, less a penalty where it is none.

    PPO hands over token ids alone, asks `base_model_prefix` for the backbone and `score` for a number per token, and
    takes the one at the end of the answer. So the backbone passes on, beside its states, whether the row is malformed.
    """

    base_model_prefix = "reader"

    def __init__(self, scorer: Any, prompt: LabelPrompt, penalty: float) -> None:
        super().__init__()
        self.reader = LineReader(getattr(scorer, scorer.base_model_prefix), prompt)
        self.head = getattr(scorer, HEAD)
        self.penalty = penalty

    def score(self, states: Tensor) -> Tensor:
        """`[B, T, 1]`. What the model says of a line it has never seen the like of is no reason to write it."""
        rewards, malformed = self.head(states[..., :-1]).float(), states[..., -1:] > 0
        return torch.where(malformed, rewards.clamp(max=0) - self.penalty, rewards)

    def take_well_formed(self) -> float | None:
        """Share of well-formed lines since the last time it was asked; None without any."""
        seen, formed = self.reader.seen, self.reader.formed
        self.reader.seen = self.reader.formed = 0
        return formed / seen if seen else None


class LineReader(nn.Module):
    def __init__(self, backbone: Any, prompt: LabelPrompt) -> None:
        super().__init__()
        self.backbone = backbone
        self.before = len(prompt.prefix)
        self.suffix = prompt.suffix
        self.lines = frozenset(list_lines(prompt))
        self.seen = self.formed = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **rest: Any) -> Any:
        """As the backbone's; the last of `hidden_states` has one feature more, 1 where the row is malformed."""
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **rest)
        states = output.hidden_states[-1]
        rows = zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True)
        malformed = [
            not self.is_line([token for token, seen in zip(ids, mask, strict=True) if seen]) for ids, mask in rows
        ]
        self.seen, self.formed = self.seen + len(malformed), self.formed + malformed.count(False)
        flag = torch.tensor(malformed, device=states.device, dtype=states.dtype).view(-1, 1, 1)
        output.hidden_states = (torch.cat([states, flag.expand(-1, states.shape[1], 1)], -1),)
        return output

    def is_line(self, ids: list[int]) -> bool:
        """Whether what follows the prompt is a whole label line and its end, and nothing else."""
        size = len(self.suffix)
        # The first one: it holds control tokens, which no text can, and what comes after it is the answer.
        ends = (
            at + size for at in range(self.before, len(ids) - size + 1) if tuple(ids[at : at + size]) == self.suffix
        )
        end = next(ends, None)
        return end is not None and tuple(ids[end:]) in self.lines


def list_lines(prompt: LabelPrompt) -> list[tuple[int, ...]]:
    """Every label line with its end of turn."""
    lines: list[tuple[int, ...]] = [()]
    for lead, trie in zip(prompt.leads, prompt.tries, strict=True):
        lines = [line + lead + path for line in lines for path in trie.paths.values()]
    return [(*line, prompt.eos) for line in lines]
