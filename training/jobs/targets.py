"""Labels as tensors, and the loss that leaves unknown dimensions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from classifier.schema import Dimension, Schema
from training.corpus.rows import Label, Row, likeliest

TEMPERATURES = tuple(2 ** (step / 8) for step in range(-8, 25))
"""From 1/2 to 8, in steps of 9 %."""


@dataclass(frozen=True, slots=True)
class Targets:
    """One dimension of a batch. `shares` is `[B, V]`: 1 for each admissible value, or a distribution; 0 = unknown.

    `is_soft` `[B]`: the row of `shares` is a distribution. `weight` `[B]`: 0 where the dimension is unknown.
    """

    shares: Tensor
    is_soft: Tensor
    weight: Tensor

    def take(self, rows: slice) -> "Targets":
        return Targets(self.shares[rows], self.is_soft[rows], self.weight[rows])

    def to(self, device: torch.device) -> "Targets":
        return Targets(self.shares.to(device), self.is_soft.to(device), self.weight.to(device))


def encode_targets(rows: Sequence[Row], schema: Schema, value_weights: Mapping[str, Tensor]) -> dict[str, Targets]:
    """Per dimension. A row's weight is multiplied by the mean weight of the values its label admits."""
    return {
        dimension.name: _encode_dimension(rows, dimension, value_weights[dimension.name])
        for dimension in schema.dimensions
    }


def _encode_dimension(rows: Sequence[Row], dimension: Dimension, value_weights: Tensor) -> Targets:
    labels = [row.labels.get(dimension.name) for row in rows]
    shares = torch.tensor([_shares(label, dimension) for label in labels])
    is_soft = torch.tensor([isinstance(label, Mapping) for label in labels])
    value_weight = (shares * value_weights).sum(-1) / shares.sum(-1).clamp(min=1e-9)
    weight = torch.tensor([row.weight for row in rows]) * value_weight
    return Targets(shares, is_soft, weight)


def _shares(label: Label | None, dimension: Dimension) -> list[float]:
    if label is None:
        return [0.0] * len(dimension.names)
    if isinstance(label, str):
        admissible = label.split("|")
        return [float(name in admissible) for name in dimension.names]
    return [label.get(name, 0.0) for name in dimension.names]


def even_weights(schema: Schema) -> dict[str, Tensor]:
    return {dimension.name: torch.ones(len(dimension.names)) for dimension in schema.dimensions}


def rarity_weights(rows: Sequence[Row], schema: Schema) -> dict[str, Tensor]:
    """1 / sqrt(frequency) of each value, scaled so that the mean over the rows is 1. A value never seen weighs 1."""
    weights = {}
    for dimension in schema.dimensions:
        seen = [value for row in rows if (value := likeliest(row.labels.get(dimension.name))) is not None]
        counts = torch.tensor([float(seen.count(name)) for name in dimension.names])
        raw = counts.clamp(min=1).rsqrt()
        mean = (raw * counts).sum() / counts.sum().clamp(min=1)
        weights[dimension.name] = torch.where(counts > 0, raw / mean.clamp(min=1e-9), torch.ones_like(raw))
    return weights


def slot_losses(logits: Tensor, targets: Targets) -> Tensor:
    """Weighted loss of each row in one dimension, `[B]`; exactly 0, with no gradient, where it is unknown.

    value or set S:  -log sum_{v in S} p_v      (marginal likelihood)
    distribution q:  -sum_v q_v log p_v         (cross-entropy)
    """
    log_p = log_softmax(logits.float(), -1)
    known = targets.weight > 0
    # An unknown row gets every value as admissible: finite numbers, so that the mask below meets no NaN.
    shares = torch.where(known.unsqueeze(-1), targets.shares, torch.ones_like(targets.shares))
    marginal = -torch.logsumexp(log_p + shares.log(), -1)
    cross_entropy = -(shares * log_p).sum(-1)
    loss = torch.where(targets.is_soft, cross_entropy, marginal)
    return torch.where(known, loss * targets.weight, torch.zeros_like(loss))


def calibrated_loss(logits: Tensor, targets: Targets) -> float:
    """Sum of `slot_losses` at the temperature that makes it least.

    A bundle divides the logits by a fitted temperature, so an epoch whose labels got better and whose probabilities
    only got too sure must not look worse than the one before it.
    """
    return min(float(slot_losses(logits / temperature, targets).sum()) for temperature in TEMPERATURES)


def known_weight(targets: Mapping[str, Targets]) -> Tensor:
    """Sum of the weights of all known slots of a batch: what its loss is divided by."""
    return torch.stack([item.weight.sum() for item in targets.values()]).sum().clamp(min=1e-9)


def batch_loss(logits: Mapping[str, Tensor], targets: Mapping[str, Targets]) -> Tensor:
    """Sum over known slots; divide by `known_weight` of the whole batch, so that micro-batches add up to it."""
    return torch.stack([slot_losses(logits[name], item).sum() for name, item in targets.items()]).sum()
