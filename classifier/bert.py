"""The BERT arm: one encoder, mean pooling, one linear head per dimension."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from classifier.batches import plan_batches, plan_cheapest
from classifier.errors import BundleError
from classifier.schema import Schema
from classifier.types import ArmScores

SETTINGS_NAME = "bert.json"
MAX_TOKENS = 256
CPU_BATCH_TOKENS = 512
"""Padded tokens per forward pass. On a CPU more of them fall out of the cache: 4,096 are a third slower a token."""
CPU_PASS_TOKENS = 16
"""What a forward pass costs beside its tokens, in tokens: about a millisecond of a MiniLM."""
GPU_BATCH_TOKENS = 16_384
OVERLAP = 64
"""Tokens that two neighbouring windows of a long text share, so that no sentence is seen only in halves."""

Runtime = Literal["torch", "onnx"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")
Ids = list[int]
Matrix = np.ndarray[Any, np.dtype[Any]]


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
        (path / SETTINGS_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

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


class ServedModel(nn.Module):
    """The schema's heads alone, their logits side by side in its order: `[B, T]` to `[B, V]`."""

    def __init__(self, model: BertModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: dict[str, Tensor] = self.model(input_ids, attention_mask)
        return torch.cat([logits[name] for name in self.names], dim=-1)


@dataclass(frozen=True, slots=True)
class PartSettings:
    """`bert.json`. A part of before the ONNX export names no runtime: it is served by torch."""

    max_tokens: int = MAX_TOKENS
    runtime: Runtime = "torch"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of the part in folder `path`. Raises BundleError naming the field."""
        try:
            raw: Any = json.loads((path / SETTINGS_NAME).read_text(encoding="utf-8"))
            pooling, runtime = raw.get("pooling"), raw.get("runtime", {}).get("name", "torch")
            settings = cls(int(raw.get("max_tokens", MAX_TOKENS)), runtime)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BundleError(f"{SETTINGS_NAME} of the bert part cannot be read: {error}") from error
        if pooling != "mean":
            raise BundleError(f"{SETTINGS_NAME}: pooling is {pooling!r}, this version knows 'mean'")
        if runtime not in RUNTIMES:
            raise BundleError(f"{SETTINGS_NAME}: runtime is {runtime!r}, this version knows {' and '.join(RUNTIMES)}")
        return settings


class EncoderArm(ABC):
    """Texts to scores by windows and batches; a subclass runs the network."""

    def __init__(self, tokenizer: Any, schema: Schema, *, max_tokens: int, is_on_gpu: bool = False) -> None:
        self.tokenizer = tokenizer
        self.schema = schema
        self.max_tokens = max_tokens
        self.is_on_gpu = is_on_gpu
        ends = np.cumsum([len(dimension.names) for dimension in schema.dimensions]).tolist()
        self._columns = [slice(start, end) for start, end in pairwise([0, *ends])]

    @abstractmethod
    def forward(self, ids: Matrix, mask: Matrix) -> Matrix:
        """`[B, T]` token ids and mask to logits `[B, V]`: the schema's dimensions side by side, in its order."""

    def score(self, texts: Sequence[str]) -> list[ArmScores]:
        """Same order. A text longer than `max_tokens` is read in windows; the one with the highest P(risk >= medium)
        speaks for the whole text, because danger in a long text is often one sentence at its end."""
        windows = encode_texts(self.tokenizer, texts, self.max_tokens)
        scored = iter(self._score_ids([ids for row in windows for ids in row]))
        scores: list[ArmScores] = []
        for row in windows:
            parts = list(islice(scored, len(row)))
            worst = max(parts, key=lambda part: self._p_risk(part[0]))
            scores.append(ArmScores("bert", worst[0], sum(latency_ms for _, latency_ms in parts)))
        return scores

    def _score_ids(self, sequences: Sequence[Ids]) -> list[tuple[dict[str, dict[str, float]], float]]:
        """Probabilities and the share of its batch's time, per sequence."""
        found: dict[int, tuple[dict[str, dict[str, float]], float]] = {}
        for batch in self._plan([len(ids) for ids in sequences]):
            started = time.perf_counter()
            logits = self.forward(*pad([sequences[index] for index in batch], self.tokenizer.pad_token_id))
            rows = [softmax(logits[:, columns]).tolist() for columns in self._columns]
            share_ms = (time.perf_counter() - started) * 1000 / len(batch)
            for place, index in enumerate(batch):
                found[index] = (self._name_values([row[place] for row in rows]), share_ms)
        return [found[index] for index in range(len(sequences))]

    def _plan(self, lengths: Sequence[int]) -> list[list[int]]:
        if self.is_on_gpu:
            return plan_batches(lengths, GPU_BATCH_TOKENS)
        return plan_cheapest(lengths, CPU_BATCH_TOKENS, CPU_PASS_TOKENS)

    def _name_values(self, rows: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
        return {
            dimension.name: dict(zip(dimension.names, row, strict=True))
            for dimension, row in zip(self.schema.dimensions, rows, strict=True)
        }

    def _p_risk(self, probabilities: Mapping[str, Mapping[str, float]]) -> float:
        risk = self.schema["risk"]
        p = sum(probabilities["risk"][name] for name in risk.names[risk.index("medium") :])
        # A window without a finite score must not hide behind a good one: it makes the whole text unscored.
        return math.inf if math.isnan(p) else p


class BertArm(EncoderArm):
    """On torch. Build it by `load`, or by `classifier.bert_onnx.load_bert`, which chooses the runtime."""

    def __init__(
        self, model: BertModel, tokenizer: Any, schema: Schema, *, max_tokens: int = MAX_TOKENS, device: str = "cpu"
    ) -> None:
        super().__init__(tokenizer, schema, max_tokens=max_tokens, is_on_gpu=device != "cpu")
        self.model = ServedModel(model, schema.names).to(device).eval()
        self.device = device

    @classmethod
    def load(cls, path: Path, base: Path, schema: Schema) -> Self:
        """On the GPU where there is one. Raises BundleError where the part does not fit the base model or schema."""
        settings = PartSettings.read(path)
        model, tokenizer = load_part(path, base, schema)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model, tokenizer, schema, max_tokens=settings.max_tokens, device=device)

    def forward(self, ids: Matrix, mask: Matrix) -> Matrix:
        with torch.inference_mode():
            logits = self.model(torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device))
        answer: Matrix = logits.double().cpu().numpy()
        return answer


def load_part(path: Path, base: Path, schema: Schema) -> tuple[BertModel, Any]:
    """Model (LoRA merged) and tokenizer. Raises BundleError where the part does not fit the base or the schema."""
    try:
        model = BertModel.load(path, base)
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"the bert part cannot be loaded on {base.name}: {error}") from error
    for dimension in schema.dimensions:
        head: Any = dict(model.heads.items()).get(dimension.name)
        if head is None or head.out_features != len(dimension.names):
            raise BundleError(f"heads.safetensors has no head of {len(dimension.names)} values for {dimension.name}")
    return model, tokenizer


def load_encoder(base: Path) -> Any:
    encoder: Any = AutoModel.from_pretrained(base, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    return encoder


def encode_windows(tokenizer: Any, text: str, max_tokens: int) -> list[Ids]:
    """`encode_texts` of one text."""
    return encode_texts(tokenizer, [text], max_tokens)[0]


def encode_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[Ids]]:
    """Per text one sequence with its special tokens, or overlapping ones of a long text; the last ends with the text.

    One call for all texts: a fast tokenizer spends less on them together. Control tokens written in a text, such as
    `[SEP]`, stay plain text.
    """
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    first, last, size = tokenizer.cls_token_id, tokenizer.sep_token_id, max_tokens - 2
    return [
        [[first, *ids[start : start + size], last] for start in window_starts(len(ids), size)]
        for ids in encoded["input_ids"]
    ]


def window_starts(length: int, size: int) -> list[int]:
    if length <= size:
        return [0]
    return [*range(0, length - size, size - min(OVERLAP, size // 2)), length - size]


def collate(sequences: Sequence[Ids], pad_id: int) -> tuple[Tensor, Tensor]:
    """`pad` as tensors."""
    ids, mask = pad(sequences, pad_id)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def pad(sequences: Sequence[Ids], pad_id: int) -> tuple[Matrix, Matrix]:
    """Right-padded ids and mask, both `[B, T]` of int64."""
    lengths = np.array([len(row) for row in sequences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = [token for row in sequences for token in row]
    return ids, mask.astype(np.int64)


def softmax(logits: Matrix) -> Matrix:
    """Over the last axis, in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares: Matrix = weights / weights.sum(-1, keepdims=True)
    return shares
