"""Keys and values of the shared prompt prefix, with room behind them that a batch fills in place.

transformers' own dynamic cache copies everything read so far at every pass and layer; here the prefix is written once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

ROOM_STEP = 64

KeysValues = tuple[Tensor, Tensor]
"""`[1 or rows, heads, tokens, size]` each."""


class PrefixLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer. Only the first `length` tokens of the two buffers mean anything."""

    def __init__(self, prefix: KeysValues, rows: int, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.prefix_tokens = self.length = prefix[0].shape[2]
        self.is_initialized = True
        self.buffers = [_make_room(part, rows, room) for part in prefix]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.buffers[0].shape[2]:
            missing = self.length - start + ROOM_STEP
            self.buffers = [_make_room(part[:, :, :start], part.shape[0], missing) for part in self.buffers]
        for buffer, fresh in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self.length] = fresh
        return self.buffers[0][:, :, : self.length], self.buffers[1][:, :, : self.length]

    def keep_rows(self, rows: Tensor) -> None:
        self.buffers = [part.index_select(0, rows) for part in self.buffers]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the prefix is there from the start."""

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return -1


class PrefixCache(Cache):
    """What a model takes as `past_key_values`: `rows` texts that share one prefix."""

    def __init__(self, prefix: Sequence[KeysValues], rows: int, room: int = ROOM_STEP) -> None:
        self.prefix_layers = [PrefixLayer(layer, rows, room) for layer in prefix]
        super().__init__(layers=[*self.prefix_layers])

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Only these rows go on, in this order."""
        chosen = torch.tensor(rows, device=self.prefix_layers[0].buffers[0].device)
        for layer in self.prefix_layers:
            layer.keep_rows(chosen)

    def rewind(self) -> None:
        """Forget everything behind the prefix."""
        for layer in self.prefix_layers:
            layer.length = layer.prefix_tokens


def _make_room(part: Tensor, rows: int, room: int) -> Tensor:
    _, heads, tokens, size = part.shape
    buffer = part.new_empty(rows, heads, tokens + room, size)
    buffer[:, :, :tokens] = part
    return buffer
