"""Linear layers in 8-bit integers on the CPU, quantised in memory when a model is loaded.

Weights are rounded per output channel, inputs per token, and sums are kept in 32 bits. Language models have a few input
channels a hundred times as large as the rest; rounded together with those, the rest is lost. So peaks are evened out
between inputs and weights (SmoothQuant, Xiao et al. 2023, equation 4), and the few channels that still stick out stay
in float32 (LLM.int8, Dettmers et al. 2022). Layers that read one tensor (query, key, value; gate, up) run as one.
"""

import ctypes
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

SMOOTHING = 0.65
"""Share of an input peak that moves into the weights, as an exponent."""
OUTLIER_RATIO = 8.0
"""A channel whose smoothed peak is so many times the median peak stays in float32."""
MAX_OUTLIERS = 16
LEAST = 1e-5


@dataclass(slots=True)
class Siblings:
    """Linears that read one and the same tensor."""

    linears: dict[str, nn.Linear]
    """By their names in the model."""
    peaks: Tensor
    """Largest magnitude seen of every input channel, `[in]`."""


@dataclass(slots=True)
class Observer:
    """Sees what the linears of a model read."""

    groups: dict[str, Siblings] = field(default_factory=dict)
    """By the name of the first sibling."""
    _first: dict[str, str] = field(default_factory=dict)
    _last_input: Tensor | None = None
    _last_group: str = ""

    def see(self, name: str, linear: nn.Linear, given: Tensor) -> None:
        if name not in self._first:
            # Siblings run one right after the other, on the very same tensor.
            self._first[name] = self._last_group if given is self._last_input else name
            self._last_group = self._first[name]
        self._last_input = given
        group = self._first[name]
        if group == name:
            peaks = given.detach().reshape(-1, given.shape[-1]).abs().amax(0).float()
            siblings = self.groups.setdefault(name, Siblings({}, peaks))
            siblings.peaks = torch.maximum(siblings.peaks, peaks)
        self.groups[group].linears[name] = linear


@contextmanager
def observe_linears(model: nn.Module, *, skip: nn.Module | None = None) -> Iterator[Observer]:
    """What the linears of `model` read while the context lasts; `skip`, the head, is left alone."""
    observer = Observer()
    hooks = []
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not skip:
            hooks.append(module.register_forward_pre_hook(partial(_see, observer, name)))
    try:
        yield observer
    finally:
        for hook in hooks:
            hook.remove()


def _see(observer: Observer, name: str, linear: nn.Linear, given: tuple[Tensor, ...]) -> None:
    observer.see(name, linear, given[0])


@torch.inference_mode()
def replace_linears(model: nn.Module, observer: Observer) -> None:
    """Put 8-bit layers in the place of the observed linears; their float32 weights are let go."""
    for siblings in observer.groups.values():
        core = Int8Core(list(siblings.linears.values()), siblings.peaks)
        for index, name in enumerate(siblings.linears):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, Int8Linear(core, index))
    observer.groups.clear()
    _return_freed_memory()


def _return_freed_memory() -> None:
    """glibc keeps what is freed: after quantising, several times what the 8-bit weights take."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library; it has its own ways


class Int8Core:
    """The product of a group of siblings; each takes its share of it. One thread at a time."""

    def __init__(self, linears: list[nn.Linear], peaks: Tensor) -> None:
        weight = torch.cat([linear.weight.detach().float() for linear in linears])
        self.sizes = [linear.out_features for linear in linears]
        smooth = _smoothing(peaks, weight)
        weight = weight * smooth
        self.outliers = _find_outliers(peaks / smooth)
        self.outlier_weight: Tensor | None = None
        self.shrink = 1 / smooth
        if len(self.outliers):
            self.outlier_weight = (weight[:, self.outliers] / smooth[self.outliers]).t().contiguous()
            weight[:, self.outliers] = 0
            self.shrink[self.outliers] = 0
        self.bias = _join_biases(linears)
        self.packed = _pack(weight)
        self.reduce_range = not torch.cpu._is_vnni_supported()  # else 16-bit sums of products overflow
        self._given: Tensor | None = None
        self._answers: tuple[Tensor, ...] = ()
        self._untaken = 0

    def take(self, given: Tensor, index: int) -> Tensor:
        if len(self.sizes) == 1:
            return self.multiply(given)
        if given is not self._given:
            self._given, self._untaken = given, len(self.sizes)
            self._answers = self.multiply(given).split_with_sizes(self.sizes, -1)
        answer = self._answers[index]
        self._untaken -= 1
        if not self._untaken:
            self._given, self._answers = None, ()
        return answer

    def multiply(self, given: Tensor) -> Tensor:
        rows = given.reshape(-1, given.shape[-1])
        scaled = rows * self.shrink
        # Each row is brought to the range -1 to 1, so that the one scale of the kernel is right for all of them.
        # Not vector_norm: along the last dimension that is ten times slower.
        peak = scaled.abs().amax(1, keepdim=True).clamp_(min=LEAST)
        out: Tensor = torch.ops.quantized.linear_dynamic(scaled.div_(peak), self.packed, self.reduce_range).mul_(peak)
        if self.outlier_weight is not None:
            out.addmm_(rows.index_select(1, self.outliers), self.outlier_weight)
        if self.bias is not None:
            out += self.bias
        return out.view(*given.shape[:-1], -1)


class Int8Linear(nn.Module):
    """Stands where a linear stood."""

    def __init__(self, core: Int8Core, index: int) -> None:
        super().__init__()
        self.core = core
        self.index = index

    def forward(self, given: Tensor) -> Tensor:
        return self.core.take(given, self.index)


def _smoothing(peaks: Tensor, weight: Tensor) -> Tensor:
    """Per input channel: inputs are divided by it, weights multiplied."""
    reach = weight.abs().amax(0).clamp(min=LEAST)
    return (peaks.clamp(min=LEAST) ** SMOOTHING / reach ** (1 - SMOOTHING)).clamp(min=LEAST)


def _find_outliers(peaks: Tensor) -> Tensor:
    """Indices, ascending."""
    largest = peaks.topk(min(MAX_OUTLIERS, len(peaks)))
    return largest.indices[largest.values > OUTLIER_RATIO * peaks.median()].sort().values


def _join_biases(linears: list[nn.Linear]) -> Tensor | None:
    if all(linear.bias is None for linear in linears):
        return None
    parts = [
        linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
        for linear in linears
    ]
    return torch.cat(parts).float()


def _pack(weight: Tensor) -> Any:
    """`[out, in]` as 8-bit integers, one scale for each output channel, in the layout of the kernel."""
    scales = weight.abs().amax(1).clamp(min=LEAST).double() / 127
    zeros = torch.zeros(len(weight), dtype=torch.long)
    with warnings.catch_warnings():
        # Deprecated in torch 2.13, which is pinned; the kernel that takes plain integers (onednn.qlinear_pointwise) was
        # a tenth slower here, more where the number of rows is new.
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
        quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    before = torch.backends.quantized.engine
    if "fbgemm" in torch.backends.quantized.supported_engines:
        # Unlike onednn it plans nothing for a new number of rows, and every text has another.
        torch.backends.quantized.engine = "fbgemm"
    try:
        return torch.ops.quantized.linear_prepack(quantised, None)
    finally:
        torch.backends.quantized.engine = before
