"""An arm as a policy over labels: a text in, the log-probability of every value of every dimension out, with gradients.

BERT's heads are such a policy as they are. The LLM's slots become one: at a slot the model has a say only where the
slot's token trie branches, so the log-probability of a value is a sum over the branches on its path.
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from transformers import AutoTokenizer, DynamicCache

from classifier.bert import BertModel, collate, encode_texts
from classifier.llm import LlmArm
from classifier.llm_prompt import LabelPrompt
from classifier.llm_tree import LineInProgress
from classifier.schema import load_schema
from training.jobs.config import LabelPpoOptions, LlmOptions
from training.jobs.llm_training import build_prompt, load_model, save_part
from training.jobs.start import Start

Item = dict[str, Any]
"""What `collate` reads of one text; `length` in tokens."""
BERT_LORA_ALPHA = 2
FULL_RATE = 0.1
"""Of the learning rate, for an encoder trained in full: what suits an adapter would wipe the weights out."""
SERVED_TOKENS = 64
"""A served BERT reads at least so many tokens a window."""


class Policy(ABC):
    """`model` is what is trained; what else differs between the arms is below."""

    arm: str
    model: Any
    rate_share = 1.0
    """Of the learning rate."""

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[Item]:
        """Same order. Called once, before any training: it may ask the policy that training starts from."""

    @abstractmethod
    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]: ...

    @abstractmethod
    def score(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log-probabilities `[B, V]` in float32 per dimension. `model` is `self.model`, wrapped or not."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """The part folder of a bundle."""


class BertPolicy(Policy):
    arm = "bert"

    def __init__(self, start: Start, options: LabelPpoOptions) -> None:
        self.schema, self.max_tokens = load_schema(), options.max_tokens
        self.tokenizer: Any = AutoTokenizer.from_pretrained(start.base, local_files_only=True)
        if start.part is not None:
            self.model = BertModel.load(start.part, start.base, trainable=True)
        else:
            heads = {dimension.name: len(dimension.names) for dimension in self.schema.dimensions}
            self.model = BertModel.build(start.base, heads, lora=_bert_lora(options.lora_rank))
        if not hasattr(self.model.encoder, "peft_config"):
            self.rate_share = FULL_RATE
        still_dropout(self.model)

    def encode(self, texts: Sequence[str]) -> list[Item]:
        windows = encode_texts(self.tokenizer, texts, self.max_tokens)
        return [{"ids": row[0], "length": len(row[0])} for row in windows]

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        ids, mask = collate([item["ids"] for item in items], self.tokenizer.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask}

    def score(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = model(inputs["input_ids"], inputs["attention_mask"])
        return {name: log_softmax(logits[name].float(), -1) for name in self.schema.names}

    def save(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.model.save(folder, max_tokens=max(self.max_tokens, SERVED_TOKENS))


def _bert_lora(rank: int) -> LoraConfig | None:
    if not rank:
        return None
    return LoraConfig(
        r=rank, lora_alpha=BERT_LORA_ALPHA * rank, target_modules="all-linear", exclude_modules=r".*pooler.*"
    )


class LlmPolicy(Policy):
    """Every slot is read behind the line that the policy at the start would write: what serving will show it too."""

    arm = "llm"

    def __init__(self, start: Start, options: LabelPpoOptions, bundle: Path | None) -> None:
        self.base, self.max_tokens = start.base, options.max_tokens
        self.prompt = build_prompt(start, bundle)
        lora = LlmOptions(
            lora_rank=max(options.lora_rank, 1), lora_layers=options.lora_layers, quantise=options.quantise
        )
        self.model = load_model(start, lora)
        still_dropout(self.model)
        self.slots = [SlotReader(self.prompt, position) for position in range(len(self.prompt.tries))]
        self.reads_prefix_once = int(os.environ.get("WORLD_SIZE", "1")) == 1
        """A batch shares one pass over the prompt prefix. DDP hooks each pass and wants a single plain one instead."""

    def encode(self, texts: Sequence[str]) -> list[Item]:
        self.model.eval()
        arm = LlmArm(self.model, self.prompt, max_tokens=self.max_tokens)
        answers = arm.score(texts)
        items = []
        for text, answer in zip(texts, answers, strict=True):
            draft = {name: max(row, key=row.__getitem__) for name, row in answer.probabilities.items()}
            pending = self.prompt.encode_text(text, arm.max_tokens) + self.prompt.suffix + self.prompt.leads[0]
            line = LineInProgress(position=0, draft=draft, pending=pending)
            line.plant_tree(self.prompt)
            items.append(self._lay_out(line))
        return items

    def _lay_out(self, line: LineInProgress) -> Item:
        """The line up to the anchor, then the tree; `nodes` are the places of the branches, slot by slot."""
        before = len(line.pending) - 1
        nodes = [node for node, _ in line.open_nodes(self.prompt)]
        tree = line.tree
        return {
            "ids": [*line.pending[:-1], *tree.tokens],
            "positions": [*range(before), *(before + depth for depth in tree.depths)],
            "ancestry": torch.from_numpy(tree.ancestry()),
            "nodes": [before + node for node in nodes],
            "length": before + len(tree.tokens),
        }

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """`input_ids`, `positions` `[B, T]`; `sight` `[B, T, T]` bool, who sees whom; `nodes` `[B, branches]`."""
        size = max(item["length"] for item in items)
        ids = torch.full((len(items), size), self.prompt.eos)
        positions = torch.zeros((len(items), size), dtype=torch.long)
        sight = torch.eye(size, dtype=torch.bool).repeat(len(items), 1, 1)
        for row, item in enumerate(items):
            length, tree = item["length"], len(item["ancestry"])
            before = length - tree
            ids[row, :length] = torch.tensor(item["ids"])
            positions[row, :length] = torch.tensor(item["positions"])
            sight[row, :before, :before] = torch.ones(before, before, dtype=torch.bool).tril()
            sight[row, before:length, :before] = True
            sight[row, before:length, before:length] = item["ancestry"]
        nodes = torch.tensor([item["nodes"] for item in items])
        return {"input_ids": ids, "positions": positions, "sight": sight, "nodes": nodes}

    def score(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        hidden = self._read(model, inputs)
        rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(-1)
        logits = self.model.get_output_embeddings()(hidden[rows, inputs["nodes"]]).float()
        starts = [0, *accumulate(len(slot.branches) for slot in self.slots)]
        return {
            name: slot(logits[:, start : start + len(slot.branches)])
            for name, slot, start in zip(self.prompt.schema.names, self.slots, starts, strict=False)
        }

    def _read(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states `[B, T, H]` of the rows; gradients flow into the prefix too."""
        ids, sight, size = inputs["input_ids"], inputs["sight"], len(self.prompt.prefix)
        prefix = ids.new_tensor([self.prompt.prefix])
        mask = torch.cat([sight.new_ones(*sight.shape[:2], size), sight], -1)
        positions = size + inputs["positions"]
        extra: dict[str, Any] = {"use_cache": False}
        if self.reads_prefix_once:
            extra = {"past_key_values": _spread(model, prefix, len(ids)), "use_cache": True}
        else:
            before = sight.new_ones(size, size).tril().expand(len(ids), -1, -1)
            before = torch.cat([before, sight.new_zeros(len(ids), size, ids.shape[1])], -1)
            mask = torch.cat([before, mask], 1)
            ids = torch.cat([prefix.expand(len(ids), -1), ids], 1)
            positions = torch.cat([torch.arange(size, device=ids.device).expand(len(ids), -1), positions], 1)
        dtype = self.model.dtype
        output = model(
            input_ids=ids,
            attention_mask=torch.zeros(mask.shape, dtype=dtype, device=ids.device)
            .masked_fill(~mask, torch.finfo(dtype).min)
            .unsqueeze(1),
            position_ids=positions,
            logits_to_keep=1,
            output_hidden_states=True,
            **extra,
        )
        hidden: Tensor = output.hidden_states[-1][:, -inputs["input_ids"].shape[1] :]
        return hidden

    def save(self, folder: Path) -> None:
        save_part(self.model, self.base, folder, self.max_tokens)


def _spread(model: Any, prefix: Tensor, rows: int) -> DynamicCache:
    """Keys and values of the prefix, read once and seen by every row."""
    first, cache = DynamicCache(), DynamicCache()
    model(input_ids=prefix, past_key_values=first, use_cache=True, logits_to_keep=1)
    layers: Any = first.layers
    for index, layer in enumerate(layers):
        cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return cache


class SlotReader:
    """Logits at the branches of one slot's trie to the log-probabilities of its values.

    log P(value) = sum over the branches on its path of log_softmax(continuations allowed there)[the one it takes]
    """

    def __init__(self, prompt: LabelPrompt, position: int) -> None:
        trie = prompt.tries[position]
        self.branches = [torch.tensor(allowed) for allowed in trie.branches.values()]
        rows = []
        for branch, allowed in trie.branches.items():
            for token in allowed:
                taken = (*branch, token)
                rows.append([float(path[: len(taken)] == taken) for path in trie.scored.values()])
        self.takes = torch.tensor(rows)
        """`[continuations, V]`: 1 where the value takes that continuation."""

    def __call__(self, logits: Tensor) -> Tensor:
        """`[B, branches, vocabulary]` to `[B, V]`."""
        steps = [
            log_softmax(logits[:, place].index_select(-1, allowed.to(logits.device)), -1)
            for place, allowed in enumerate(self.branches)
        ]
        return torch.cat(steps, -1) @ self.takes.to(logits.device)


def still_dropout(model: nn.Module) -> None:
    """A policy must give the same text the same distribution twice: the ratio of the two is what PPO clips."""
    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def build_policy(start: Start, options: LabelPpoOptions, bundle: Path | None) -> Policy:
    """`bundle`: the serving one, whose prompt the LLM goes on with."""
    policy: Policy
    policy = BertPolicy(start, options) if options.arm == "bert" else LlmPolicy(start, options, bundle)
    if torch.cuda.is_available() and not options.quantise:
        policy.model.to("cuda")
    return policy
