"""The BERT arm: one encoder, mean pooling, one linear head per dimension."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from classifier.batches import plan_batches
from classifier.errors import BundleError
from classifier.schema import Schema
from classifier.types import ArmScores

MAX_TOKENS = 256
BATCH_TOKENS = 4096
"""Padded tokens per forward pass."""
OVERLAP = 64
"""Tokens that two neighbouring windows of a long text share, so that no sentence is seen only in halves."""

Ids = list[int]


class BertModel(nn.Module):
    """Encoder, mean pooling, heads. `heads` may hold auxiliary ones besides the schema's; only those serve."""

    def __init__(self, encoder: nn.Module, heads: Mapping[str, int], *, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        config: Any = encoder.config
        size: int = config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(size, values) for name, values in heads.items()})

    @classmethod
    def build(cls, base: Path, heads: Mapping[str, int], *, lora: Any = None, dropout: float = 0.1) -> Self:
        """A model to train: fresh heads on the base encoder, with a peft `LoraConfig` or trained in full."""
        encoder = load_encoder(base)
        if lora is not None:
            from peft import get_peft_model

            encoder = get_peft_model(encoder, lora)
        return cls(encoder, heads, dropout=dropout)

    @classmethod
    def load(cls, path: Path, base: Path, *, trainable: bool = False) -> Self:
        """A saved part. LoRA is merged unless `trainable`, which keeps the adapter for more training."""
        weights = load_file(path / "heads.safetensors")
        heads = {name.removesuffix(".weight"): row.shape[0] for name, row in weights.items() if name.endswith("weight")}
        if (path / "adapter_config.json").is_file():
            from peft import PeftModel

            encoder: Any = PeftModel.from_pretrained(load_encoder(base), str(path), is_trainable=trainable)
            encoder = encoder if trainable else encoder.merge_and_unload()
        else:
            encoder = load_encoder(base)
            if (path / "model.safetensors").is_file():
                encoder.load_state_dict(load_file(path / "model.safetensors"))
        model = cls(encoder, heads)
        model.heads.load_state_dict(weights)
        return model

    def save(self, path: Path, *, max_tokens: int = MAX_TOKENS) -> None:
        """Write the part of a bundle: heads, and the adapter or the whole encoder."""
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: row.contiguous() for name, row in self.heads.state_dict().items()}, path / "heads.safetensors")
        encoder: Any = self.encoder
        if hasattr(encoder, "peft_config"):
            encoder.save_pretrained(path)
        else:
            weights = {name: row.contiguous() for name, row in encoder.state_dict().items()}
            save_file(weights, path / "model.safetensors")
        settings = {"max_tokens": max_tokens, "pooling": "mean"}
        (path / "bert.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`[B, T]` token ids and mask to logits `[B, n_values]` per head."""
        pooled = self.dropout(self.embed(input_ids, attention_mask))
        return {name: head(pooled) for name, head in self.heads.items()}

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean of the last hidden states over real tokens, `[B, H]`."""
        output: Any = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden: Tensor = output.last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


class BertArm:
    """Build it by `load`."""

    def __init__(self, model: BertModel, tokenizer: Any, schema: Schema, *, max_tokens: int = MAX_TOKENS) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.schema = schema
        self.max_tokens = max_tokens
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, path: Path, base: Path, schema: Schema) -> Self:
        """Raises BundleError where the part does not fit the base model or the schema."""
        try:
            settings = json.loads((path / "bert.json").read_text(encoding="utf-8"))
            model = BertModel.load(path, base)
            tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise BundleError(f"the bert part cannot be loaded on {base.name}: {error}") from error
        if settings.get("pooling") != "mean":
            raise BundleError(f"bert.json: pooling is {settings.get('pooling')!r}, this version knows 'mean'")
        for dimension in schema.dimensions:
            head: Any = dict(model.heads.items()).get(dimension.name)
            if head is None or head.out_features != len(dimension.names):
                raise BundleError(
                    f"heads.safetensors has no head of {len(dimension.names)} values for {dimension.name}"
                )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, schema, max_tokens=int(settings.get("max_tokens", MAX_TOKENS)))

    def score(self, texts: Sequence[str]) -> list[ArmScores]:
        """Same order. A text longer than `max_tokens` is read in windows; the one with the highest P(risk >= medium)
        speaks for the whole text, because danger in a long text is often one sentence at its end."""
        windows = [encode_windows(self.tokenizer, text, self.max_tokens) for text in texts]
        flat = [ids for row in windows for ids in row]
        scored = self._score_ids(flat)
        scores: list[ArmScores] = []
        start = 0
        for row in windows:
            parts = scored[start : start + len(row)]
            start += len(row)
            worst = max(parts, key=lambda part: self._p_risk(part[0]))
            scores.append(ArmScores("bert", worst[0], sum(latency_ms for _, latency_ms in parts)))
        return scores

    def _score_ids(self, sequences: Sequence[Ids]) -> list[tuple[dict[str, dict[str, float]], float]]:
        """Probabilities and the share of its batch's time, per sequence."""
        found: dict[int, tuple[dict[str, dict[str, float]], float]] = {}
        for batch in plan_batches([len(ids) for ids in sequences], BATCH_TOKENS):
            started = time.perf_counter()
            ids, mask = collate([sequences[index] for index in batch], self.tokenizer.pad_token_id)
            with torch.inference_mode():
                logits = self.model(ids.to(self.device), mask.to(self.device))
            rows = {
                dimension.name: logits[dimension.name].double().softmax(-1).tolist()
                for dimension in self.schema.dimensions
            }
            share_ms = (time.perf_counter() - started) * 1000 / len(batch)
            for place, index in enumerate(batch):
                found[index] = (self._name_values(rows, place), share_ms)
        return [found[index] for index in range(len(sequences))]

    def _name_values(self, rows: Mapping[str, list[list[float]]], place: int) -> dict[str, dict[str, float]]:
        return {
            dimension.name: dict(zip(dimension.names, rows[dimension.name][place], strict=True))
            for dimension in self.schema.dimensions
        }

    def _p_risk(self, probabilities: Mapping[str, Mapping[str, float]]) -> float:
        risk = self.schema["risk"]
        p = sum(probabilities["risk"][name] for name in risk.names[risk.index("medium") :])
        # A window without a finite score must not hide behind a good one: it makes the whole text unscored.
        return math.inf if math.isnan(p) else p


def load_encoder(base: Path) -> Any:
    encoder: Any = AutoModel.from_pretrained(base, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    return encoder


def encode_windows(tokenizer: Any, text: str, max_tokens: int) -> list[Ids]:
    """One sequence with its special tokens, or overlapping ones of a long text. The last window ends with the text.

    Control tokens written in the text, such as `[SEP]`, stay plain text.
    """
    ids: Ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    size = max_tokens - 2
    starts = [0]
    if len(ids) > size:
        starts = [*range(0, len(ids) - size, size - min(OVERLAP, size // 2)), len(ids) - size]
    return [[tokenizer.cls_token_id, *ids[start : start + size], tokenizer.sep_token_id] for start in starts]


def collate(sequences: Sequence[Ids], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and mask, both `[B, T]`."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in sequences])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sequences])
    return ids, mask
