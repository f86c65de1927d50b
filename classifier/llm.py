"""The LLM arm: it scores label lines, it never generates freely.

The prompt prefix is one KV cache, made at load. Per batch, one forward pass holds for every row the text, the drafted
line, and every branch of the label tries that the draft does not pass through, as a token tree under a tree attention
mask. Slot by slot the model's own choice is read off; a row whose draft is wrong at a slot runs again from there only.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, DynamicCache

from classifier.batches import plan_batches
from classifier.errors import BundleError
from classifier.int8 import observe_linears, replace_linears
from classifier.llm_cache import KeysValues, PrefixCache
from classifier.llm_load import MAX_TOKENS, LlmSettings, load_llm
from classifier.llm_prompt import LabelPrompt, Tokens
from classifier.llm_tree import Floats, Habits, LineInProgress
from classifier.schema import GOLDEN_STATEMENTS, Schema
from classifier.types import ArmScores, Labels

__all__ = ["MAX_TOKENS", "LlmArm"]

BATCH_ROWS = 16
BATCH_TOKENS = 4096
CPU_BATCH_TOKENS = 256
"""One core is busy with few tokens already; from there on a batch only adds padding."""
HEAD_PROBE = 8
"""Tokens of the prefix on which the head is looked at."""
HEAD_TOLERANCE = 1e-5
"""Of the largest logit: what two orders of summing float32 may differ by."""


class LlmArm:
    """Build it by `load`. Not thread-safe: the server gives each bundle one worker thread."""

    def __init__(self, model: Any, prompt: LabelPrompt, *, max_tokens: int = MAX_TOKENS) -> None:
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.prompt = prompt
        self.schema = prompt.schema
        self.max_tokens = min(max_tokens, _room_for_text(self.model.config, prompt))
        self._allowed = sorted({token for trie in prompt.tries for ids in trie.branches.values() for token in ids})
        self._column = {token: column for column, token in enumerate(self._allowed)}
        self._default_draft = {dimension.name: dimension.names[0] for dimension in self.schema.dimensions}
        self._habits = Habits()
        with torch.inference_mode():
            self._head_rows = self._find_head_rows()
            self._prefix = self._read_prefix()
        self._single = PrefixCache(self._prefix, 1)

    @classmethod
    def load(
        cls, path: Path, base: Path, schema: Schema, prompt: str, *, settings: LlmSettings | None = None
    ) -> "LlmArm":
        """Raises BundleError. `settings` in place of those of the part and the environment, for measuring."""
        settings = settings or LlmSettings.read(path)
        adapter = path if (path / "adapter_config.json").is_file() else None
        try:
            tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
            model = load_llm(base, adapter, settings)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise BundleError(f"the llm part cannot be loaded on {base.name}: {error}") from error
        arm = cls(model, LabelPrompt.build(tokenizer, schema, prompt), max_tokens=settings.max_tokens)
        if settings.int8 and not settings.quantise and arm.model.device.type == "cpu":
            arm.use_int8()
        return arm

    def close(self) -> None:
        """Nothing is open; what it holds in memory goes with it."""

    def use_int8(self) -> None:
        """8-bit linears from here on. The cached prefix stays as the full weights read it.

        The kernel scales a pass by all its rows, so here, unlike in float32, the company of a text and its draft move
        its probabilities: by up to 0.02 on toy models.
        """
        with observe_linears(self.model, skip=self.model.get_output_embeddings()) as observer:
            with torch.inference_mode():
                self._read_prefix()
            self.score([text for text, _, _ in GOLDEN_STATEMENTS])
        replace_linears(self.model, observer)

    def score(self, texts: Sequence[str], drafts: Sequence[Labels] | None = None) -> list[ArmScores]:
        """Same order. Drafts change the time taken, never the answer. `latency_ms` is a text's share of its batch."""
        tokens = [self.prompt.encode_text(text, self.max_tokens) for text in texts]
        scores: list[ArmScores | None] = [None] * len(texts)
        budget = CPU_BATCH_TOKENS if self.model.device.type == "cpu" else BATCH_TOKENS
        fixed = len(self.prompt.suffix) + self.prompt.longest_line
        for batch in plan_batches([len(ids) + fixed for ids in tokens], budget, rows=BATCH_ROWS):
            started = time.perf_counter()
            rows = [
                LineInProgress(
                    position=index,
                    draft=self._default_draft | dict(drafts[index] if drafts else {}),
                    pending=tokens[index] + self.prompt.suffix + self.prompt.leads[0],
                )
                for index in batch
            ]
            with torch.inference_mode():
                self._score_rows(rows)
            share_ms = (time.perf_counter() - started) * 1000 / len(batch)
            for row in rows:
                scores[row.position] = ArmScores("llm", row.probabilities, share_ms)
        return [score for score in scores if score is not None]

    def _score_rows(self, rows: list[LineInProgress]) -> None:
        cache = self._open_cache(len(rows))
        visible = np.ones((len(rows), len(self.prompt.prefix)), dtype=bool)
        while rows:
            for row in rows:
                row.plant_tree(self.prompt)
            logits, visible = self._forward(rows, cache, visible)
            tree_start = visible.shape[1] - logits.shape[1]
            open_rows = []
            for index, row in enumerate(rows):
                accepted = row.accept(self.prompt, partial(self._read_node, logits[index]), self._habits)
                # Of the tree only the accepted line comes into sight of the row's next pass.
                visible[index, tree_start + np.flatnonzero(row.tree.ancestry()[accepted])] = True
                if not row.is_done(self.prompt):
                    open_rows.append(index)
            if len(open_rows) < len(rows):
                rows, visible = [rows[index] for index in open_rows], visible[open_rows]
                if rows:
                    cache.keep_rows(open_rows)

    def _read_node(self, logits: Floats, node: int, allowed: Tokens) -> Floats:
        answer: Floats = logits[node, [self._column[token] for token in allowed]]
        return answer

    def _forward(
        self, rows: list[LineInProgress], cache: PrefixCache, visible: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """One pass over `[left padding, pending tokens, tree, right padding]`.

        `visible` is `[B, C]`: which cached tokens a row may see. Returns the logits of the tree nodes,
        `[B, K, allowed tokens]`, and the new `visible`, `[B, C + L + K]`, with no tree node in sight yet.
        """
        lines = [row.pending[:-1] for row in rows]
        length, width = max(map(len, lines)), max(len(row.tree.tokens) for row in rows)
        size, cached = length + width, visible.shape[1]
        ids = np.full((len(rows), size), self.prompt.eos, dtype=np.int64)
        positions = np.zeros_like(ids)
        mask = np.zeros((len(rows), size, cached + size), dtype=bool)
        mask[:, :, :cached] = visible[:, None, :]
        for index, (row, line) in enumerate(zip(rows, lines, strict=True)):
            nodes, pad, seen = len(row.tree.tokens), length - len(line), int(visible[index].sum())
            ids[index, pad : length + nodes] = [*line, *row.tree.tokens]
            positions[index, pad:length] = seen + np.arange(len(line))
            positions[index, length : length + nodes] = seen + len(line) + np.array(row.tree.depths)
            mask[index, pad:length, cached + pad : cached + length] = np.tri(len(line), dtype=bool)
            mask[index, length : length + nodes, cached + pad : cached + length] = True
            mask[index, length : length + nodes, cached + length : cached + length + nodes] = row.tree.ancestry()
        logits = self._run(ids, positions, mask, cache, width)
        in_sight = np.zeros((len(rows), size), dtype=bool)
        for index, line in enumerate(lines):
            in_sight[index, length - len(line) : length] = True
        return logits, np.concatenate([visible, in_sight], axis=1)

    def _run(
        self,
        ids: np.ndarray[Any, Any],
        positions: np.ndarray[Any, Any],
        mask: np.ndarray[Any, Any],
        cache: PrefixCache,
        keep: int,
    ) -> np.ndarray[Any, Any]:
        device, dtype = self.model.device, self.model.dtype
        # Padding sees the prefix, so no row of the mask is empty and no softmax is NaN.
        additive = torch.zeros(mask.shape, dtype=dtype, device=device)
        additive.masked_fill_(torch.from_numpy(~mask).to(device), torch.finfo(dtype).min)
        given = {
            "input_ids": torch.from_numpy(ids).to(device),
            "position_ids": torch.from_numpy(positions).to(device),
            "attention_mask": additive[:, None],
            "past_key_values": cache,
            "use_cache": True,
        }
        if self._head_rows is None:
            logits = self.model(**given, logits_to_keep=keep).logits[..., self._allowed]
        else:
            logits = self.model.get_decoder()(**given).last_hidden_state[:, -keep:].float() @ self._head_rows
        answer: np.ndarray[Any, Any] = logits.double().cpu().numpy()
        return answer

    def _find_head_rows(self) -> Tensor | None:
        """The head's columns for the tokens of labels, `[hidden, allowed]`: of its vocabulary they are a few in 50 000.

        None where the model does more than this product to get its logits: scale, cap, bias, an adapter.
        """
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)
        if weight is None or not weight.is_floating_point() or weight.shape[0] <= self._allowed[-1]:
            return None
        ids = torch.tensor([self.prompt.prefix[:HEAD_PROBE]], device=self.model.device)
        hidden = self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float()
        wanted = self.model(input_ids=ids, use_cache=False).logits[..., self._allowed].float()
        rows = weight[self._allowed].float().t().contiguous()
        if hidden.shape[-1] != rows.shape[0]:
            return None
        tolerance = max(HEAD_TOLERANCE, 4 * torch.finfo(self.model.dtype).eps) * float(wanted.abs().max())
        return rows if torch.allclose(hidden @ rows, wanted, rtol=0, atol=tolerance) else None

    def _read_prefix(self) -> list[KeysValues]:
        cache = DynamicCache()
        ids = torch.tensor([self.prompt.prefix], device=self.model.device)
        self.model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
        layers: list[Any] = list(cache.layers)
        return [(layer.keys, layer.values) for layer in layers]

    def _open_cache(self, rows: int) -> PrefixCache:
        """One text alone, the usual case online, finds the cache of the text before it and writes over that."""
        if rows > 1:
            return PrefixCache(self._prefix, rows)
        self._single.rewind()
        return self._single


def _room_for_text(config: Any, prompt: LabelPrompt) -> int:
    """Tokens that a text may have, so that the whole stays within the model's positions and its attention window."""
    windows = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
    longest = min([int(window) for window in windows if window], default=1_000_000)
    return longest - len(prompt.prefix) - len(prompt.suffix) - prompt.longest_line
