"""The rows of a label_ppo run as tensors, and the rounds in which they are learned from."""

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Sampler

from classifier.schema import Dimension, Schema
from training.corpus.preferences import RewardRow
from training.corpus.rows import Row, split_of, text_key
from training.jobs.bert import bucket_batches
from training.jobs.label_policy import Item, Policy
from training.jobs.targets import Targets, encode_targets, even_weights

HELD_OUT_SHARE = 0.1
REPLAY_DIVISOR = 2
"""One replayed row beside so many verdicts: each costs a pass as a verdict does."""
REPLAY_STRETCH = 2
"""A replayed row is at most so many times as long as the longest verdict beside it: all are padded to one length."""


def split_held_out(rows: Sequence[RewardRow]) -> tuple[list[RewardRow], list[RewardRow]]:
    """Verdicts to learn from, and a tenth of the texts to judge the policy on. By text, so stable between runs."""
    held_out = [row for row in rows if is_held_out(row.text)]
    return [row for row in rows if not is_held_out(row.text)], held_out


def is_held_out(text: str) -> bool:
    # A salt of its own: with the key as it is, the texts of a snapshot's train split would all fall on one side.
    return split_of(f"reward:{text_key(text)}", val_share=HELD_OUT_SHARE, test_share=0) == "val"


@dataclass(frozen=True, slots=True)
class Slot:
    """One dimension of N rows. `weight` `[N]` is 0 where no value's reward is known."""

    rewards: Tensor
    """`[N, V]`"""
    known: Tensor
    """`[N, V]` bool"""
    weight: Tensor
    targets: Targets
    """What replayed rows are labelled with; of weight 0 in all others."""
    reference: Tensor
    """Log-probabilities `[N, V]` of the policy that training starts from."""
    old: Tensor
    """The same of the policy at the beginning of the row's round."""

    @classmethod
    def build(cls, dimension: Dimension, rows: Sequence[RewardRow | Row], targets: Targets, reference: Tensor) -> Self:
        known = [_rewards_of(row).get(dimension.name, {}) for row in rows]
        mask = torch.tensor([[name in row for name in dimension.names] for row in known])
        return cls(
            rewards=torch.tensor([[row.get(name, 0.0) for name in dimension.names] for row in known]),
            known=mask,
            weight=torch.tensor([row.weight for row in rows]) * mask.any(-1),
            targets=targets,
            reference=reference,
            old=reference.clone(),
        )

    def take(self, at: Tensor, device: torch.device) -> "Slot":
        targets = Targets(self.targets.shares[at], self.targets.is_soft[at], self.targets.weight[at])
        parts = (self.rewards, self.known, self.weight)
        rewards, known, weight = (part[at].to(device) for part in parts)
        return Slot(rewards, known, weight, targets.to(device), self.reference[at].to(device), self.old[at].to(device))


def _rewards_of(row: RewardRow | Row) -> Mapping[str, Mapping[str, float]]:
    return row.rewards if isinstance(row, RewardRow) else {}


@dataclass(frozen=True, slots=True)
class PolicyData:
    """Rows in this order: verdicts, replayed rows, held-out verdicts. An item's `index` is its place in it."""

    items: list[Item]
    slots: dict[str, Slot]
    verdicts: int
    replayed: int

    @classmethod
    def build(
        cls,
        policy: Policy,
        schema: Schema,
        train: Sequence[RewardRow],
        replay: Sequence[Row],
        held_out: list[RewardRow],
    ) -> Self:
        rows: list[RewardRow | Row] = [*train, *replay, *held_out]
        items = [{**item, "index": index} for index, item in enumerate(policy.encode([row.text for row in rows]))]
        labelled = [row if isinstance(row, Row) else Row(row.id, row.text, {}, "") for row in rows]
        targets = encode_targets(labelled, schema, even_weights(schema))
        reference = score_items(policy, items)
        slots = {
            dimension.name: Slot.build(dimension, rows, targets[dimension.name], reference[dimension.name])
            for dimension in schema.dimensions
        }
        return cls(items, slots, len(train), len(replay))

    @property
    def held_out(self) -> Tensor:
        return torch.arange(self.verdicts + self.replayed, len(self.items))

    def take(self, at: Tensor, device: torch.device) -> dict[str, Slot]:
        return {name: slot.take(at, device) for name, slot in self.slots.items()}

    def remember(self, at: Tensor, log_p: Mapping[str, Tensor]) -> None:
        """From here on `log_p` is the old policy of the rows `at`."""
        for name, slot in self.slots.items():
            slot.old[at] = log_p[name].detach().to(slot.old)

    @property
    def slot_weight(self) -> float:
        """Mean over the verdicts of the weight of their known slots."""
        total = sum(float(slot.weight[: self.verdicts].sum()) for slot in self.slots.values())
        return total / max(self.verdicts, 1)

    @property
    def label_weight(self) -> float:
        """Mean over the replayed rows of the weight of their labelled slots."""
        return sum(float(slot.targets.weight.sum()) for slot in self.slots.values()) / max(self.replayed, 1)


@torch.no_grad()
def score_items(policy: Policy, items: Sequence[Item], batch_size: int = 32) -> dict[str, Tensor]:
    """Log-probabilities `[N, V]` per dimension, on the CPU, in the order of the items."""
    policy.model.eval()
    order = sorted(range(len(items)), key=lambda index: items[index]["length"])
    parts = []
    for at in range(0, len(order), batch_size):
        inputs = policy.collate([items[index] for index in order[at : at + batch_size]])
        parts.append(policy.score(policy.model, {name: row.to(policy.device) for name, row in inputs.items()}))
    back = torch.tensor(order).argsort()
    return {name: torch.cat([part[name].cpu() for part in parts])[back] for name in parts[0]}


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a round: so many verdicts and replayed rows a step, and so many steps."""

    verdicts: int
    replayed: int
    steps: int

    @classmethod
    def fit(cls, data: PolicyData, *, batch_size: int, steps: int, parts: int) -> Self:
        """A step's rows divide evenly into `parts`: micro-batches times processes."""
        verdicts = min(batch_size, data.verdicts)
        replayed = -(-verdicts // REPLAY_DIVISOR) if data.replayed else 0
        missing = -(verdicts + replayed) % parts
        return cls(verdicts + missing * (not replayed), replayed + missing * bool(replayed), steps)

    @property
    def rows(self) -> int:
        return self.verdicts + self.replayed


@dataclass
class RoundSampler(Sampler[int]):
    """Each batch of verdicts several steps on end, in the same places; replayed rows between them, new ones each step.

    A micro-batch, and a process, thus meets the same verdicts in every step of a round. The order depends on the seed
    and the epoch alone.
    """

    data: PolicyData
    shape: Shape
    batch_size: int
    seed: int
    epoch: int = field(default=0, init=False)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def rounds(self) -> int:
        return -(-self.data.verdicts // self.batch_size)

    def __len__(self) -> int:
        return self.rounds * self.shape.steps * self.shape.rows

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}:{self.epoch}")
        lengths = [item["length"] for item in self.data.items[: self.data.verdicts]]
        for batch in bucket_batches(lengths, self.batch_size, self.seed + self.epoch):
            # The last batch may be short. A verdict met twice in an epoch does no harm.
            full = batch + rng.choices(range(self.data.verdicts), k=self.shape.verdicts - len(batch))
            near = self._find_replay(max(lengths[index] for index in full))
            for _ in range(self.shape.steps):
                yield from weave(full, rng.choices(near, k=self.shape.replayed) if near else [])

    def _find_replay(self, longest: int) -> list[int]:
        """Rows that may stand beside verdicts of so many tokens: the shortest ones, where all are too long."""
        items, first = self.data.items, self.data.verdicts
        order = sorted(range(first, first + self.data.replayed), key=lambda index: items[index]["length"])
        cut = bisect_right(order, REPLAY_STRETCH * longest, key=lambda index: items[index]["length"])
        return order[: max(cut, self.shape.replayed)]


def weave(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Both, evenly among each other, so that every part of the whole has its share of either."""
    places: list[tuple[float, int, int]] = []
    for rank, row in enumerate((first, second)):
        places += [((at + 0.5) / len(row), rank, value) for at, value in enumerate(row)]
    return [value for _, _, value in sorted(places, key=lambda place: place[:2])]
