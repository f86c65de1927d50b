"""The LLM arm: it scores label lines, it never generates freely.

The prompt prefix is one KV cache, made at load. Per batch, one forward pass holds for every row the text, the drafted
line, and every branch of the label tries that the draft does not pass through, as a token tree under a tree attention
mask. Slot by slot the model's own choice is read off; a row whose draft is wrong at a slot runs again from there only.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from classifier.batches import plan_batches
from classifier.errors import BundleError
from classifier.llm_prompt import LabelPrompt, LabelTrie, Tokens
from classifier.schema import Schema
from classifier.types import ArmScores, Labels

MAX_TOKENS = 512
BATCH_ROWS = 16
BATCH_TOKENS = 4096
QUANTISATIONS = ("", "8bit", "4bit")


@dataclass(slots=True)
class TokenTree:
    """Tokens with parents; node 0 is the anchor, the last token before the first open slot."""

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def extend(self, node: int, path: Tokens) -> int:
        """The node at the end of `path` below `node`; steps that exist are shared."""
        for token in path:
            if (node, token) not in self.children:
                self.children[node, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(node)
                self.depths.append(self.depths[node] + 1)
            node = self.children[node, token]
        return node

    def ancestry(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """`[n, n]`, True where the column is an ancestor of the row or the row itself."""
        size = len(self.tokens)
        mask = np.eye(size, dtype=bool)
        for node in range(1, size):
            mask[node] |= mask[self.parents[node]]
        return mask


@dataclass(slots=True)
class _Row:
    """One text under way. `pending` are tokens already certain but not yet in the cache, the anchor last."""

    position: int
    """Index in the batch as given."""
    draft: dict[str, str]
    pending: Tokens
    slot: int = 0
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    tree: TokenTree = field(default_factory=lambda: TokenTree([0]))
    roots: dict[int, int] = field(default_factory=dict)
    """Slot -> tree node its value hangs on."""


class LlmArm:
    """Build it by `load`. Not thread-safe: the server gives each bundle one worker thread."""

    def __init__(self, model: Any, prompt: LabelPrompt, *, max_tokens: int = MAX_TOKENS) -> None:
        self.model = model
        self.prompt = prompt
        self.schema = prompt.schema
        self.max_tokens = max_tokens
        self._allowed = sorted({token for trie in prompt.tries for ids in trie.branches.values() for token in ids})
        self._column = {token: column for column, token in enumerate(self._allowed)}
        self._default_draft = {dimension.name: dimension.names[0] for dimension in self.schema.dimensions}
        self._prefix = self._read_prefix()

    @classmethod
    def load(cls, path: Path, base: Path, schema: Schema, prompt: str) -> "LlmArm":
        """Raises BundleError. HEED_LLM_QUANTISE (`8bit`, `4bit`: bitsandbytes) shrinks the base model at load."""
        try:
            settings = json.loads((path / "llm.json").read_text(encoding="utf-8"))
            tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
            model = _load_model(base, path if (path / "adapter_config.json").is_file() else None)
        except (OSError, ValueError, RuntimeError) as error:
            raise BundleError(f"the llm part cannot be loaded on {base.name}: {error}") from error
        label_prompt = LabelPrompt.build(tokenizer, schema, prompt)
        return cls(model, label_prompt, max_tokens=int(settings.get("max_tokens", MAX_TOKENS)))

    def score(self, texts: Sequence[str], drafts: Sequence[Labels] | None = None) -> list[ArmScores]:
        """Same order. Drafts change the time taken, never the answer. `latency_ms` is a text's share of its batch."""
        tokens = [self.prompt.encode_text(text, self.max_tokens) for text in texts]
        scores: list[ArmScores | None] = [None] * len(texts)
        for batch in plan_batches([len(ids) for ids in tokens], BATCH_TOKENS, rows=BATCH_ROWS):
            started = time.perf_counter()
            rows = [
                _Row(
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

    def _score_rows(self, rows: list[_Row]) -> None:
        cache = self._expand_prefix(len(rows))
        visible = np.ones((len(rows), len(self.prompt.prefix)), dtype=bool)
        while rows:
            for row in rows:
                self._plant_tree(row)
            logits, visible = self._forward(rows, cache, visible)
            tree_start = visible.shape[1] - logits.shape[1]
            open_rows = []
            for index, row in enumerate(rows):
                accepted = self._accept(row, logits[index])
                # Of the tree only the accepted line comes into sight of the row's next pass.
                visible[index, tree_start + np.flatnonzero(row.tree.ancestry()[accepted])] = True
                if row.slot < len(self.schema.names):
                    open_rows.append(index)
            if len(open_rows) < len(rows):
                rows, visible = [rows[index] for index in open_rows], visible[open_rows]
                if rows:
                    cache.batch_select_indices(torch.tensor(open_rows, device=self.model.device))

    def _plant_tree(self, row: _Row) -> None:
        """The rest of the drafted line, and beside it every trie branch where the model must be asked."""
        row.tree, row.roots = TokenTree([row.pending[-1]]), {}
        root = 0
        for slot in range(row.slot, len(self.schema.names)):
            trie = self.prompt.tries[slot]
            row.roots[slot] = root
            for branch in trie.branches:
                row.tree.extend(root, branch)
            if slot + 1 < len(self.schema.names):
                value = trie.paths[row.draft[self.schema.names[slot]]]
                root = row.tree.extend(root, value + self.prompt.leads[slot + 1])

    def _accept(self, row: _Row, logits: np.ndarray[Any, Any]) -> int:
        """Read slots off until the draft and the model differ. Returns the last node that stays valid."""
        names = self.schema.names
        root = 0
        for slot in range(row.slot, len(names)):
            trie, root = self.prompt.tries[slot], row.roots[slot]
            row.probabilities[names[slot]] = self._read_slot(row.tree, root, trie, logits)
            choice = max(trie.paths, key=row.probabilities[names[slot]].__getitem__)
            row.slot = slot + 1
            if row.slot == len(names):
                break
            if choice != row.draft[names[slot]]:
                row.pending = trie.paths[choice] + self.prompt.leads[slot + 1]
                break
        return root

    def _read_slot(self, tree: TokenTree, root: int, trie: LabelTrie, logits: np.ndarray[Any, Any]) -> dict[str, float]:
        """P(value) = product over the branching nodes on its path of softmax over the continuations allowed there."""
        log_p = dict.fromkeys(trie.scored, 0.0)
        for branch, allowed in trie.branches.items():
            node = tree.extend(root, branch)
            row = logits[node, [self._column[token] for token in allowed]]
            row = row - row.max()
            row = row - np.log(np.exp(row).sum())
            for value, path in trie.scored.items():
                if len(path) > len(branch) and path[: len(branch)] == branch:
                    log_p[value] += float(row[allowed.index(path[len(branch)])])
        weights = {value: float(np.exp(log)) for value, log in log_p.items()}
        total = sum(weights.values())
        return {value: weight / total for value, weight in weights.items()}

    def _forward(
        self, rows: list[_Row], cache: DynamicCache, visible: np.ndarray[Any, Any]
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
        cache: DynamicCache,
        keep: int,
    ) -> np.ndarray[Any, Any]:
        device, dtype = self.model.device, self.model.dtype
        # Padding sees the prefix, so no row of the mask is empty and no softmax is NaN.
        additive = torch.zeros(mask.shape, dtype=dtype, device=device)
        additive.masked_fill_(torch.from_numpy(~mask).to(device), torch.finfo(dtype).min)
        output = self.model(
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=additive[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        allowed = torch.tensor(self._allowed, device=device)
        logits: np.ndarray[Any, Any] = output.logits[..., allowed].double().cpu().numpy()
        return logits

    def _read_prefix(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the shared prefix, `[1, heads, tokens, size]` per layer."""
        cache = DynamicCache()
        with torch.inference_mode():
            ids = torch.tensor([self.prompt.prefix], device=self.model.device)
            self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers: list[Any] = list(cache.layers)
        return [(layer.keys, layer.values) for layer in layers]

    def _expand_prefix(self, rows: int) -> DynamicCache:
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._prefix):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
        return cache


def _load_model(base: Path, adapter: Path | None) -> Any:
    quantise = os.environ.get("HEED_LLM_QUANTISE", "")
    if quantise not in QUANTISATIONS:
        raise ValueError(f"HEED_LLM_QUANTISE is {quantise!r}, expected 8bit, 4bit or nothing")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": torch.bfloat16 if device == "cuda" else torch.float32}
    if quantise:
        bits_and_bytes: Any = transformers.BitsAndBytesConfig
        options["quantization_config"] = bits_and_bytes(
            load_in_8bit=quantise == "8bit", load_in_4bit=quantise == "4bit", bnb_4bit_compute_dtype=options["dtype"]
        )
        options["device_map"] = device
    # SDPA and eager take a ready-made 4-D mask; flash attention does not.
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, local_files_only=True, use_safetensors=True, attn_implementation="sdpa", **options
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
        # Merging into quantised weights would round the adapter away, so there it stays beside them.
        model = model if quantise else model.merge_and_unload()
    return model.eval() if quantise else model.to(device).eval()
