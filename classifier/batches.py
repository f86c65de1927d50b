"""Batches of like length, so that little is padded."""

from collections.abc import Sequence
from math import inf


def plan_batches(lengths: Sequence[int], budget: int, *, rows: int | None = None) -> list[list[int]]:
    """Indices, longest first, in batches whose padded size stays within `budget` tokens and `rows` rows.

    A sequence longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        size = len(batches[-1]) + 1 if batches else 0
        if batches and size * longest <= budget and (rows is None or size <= rows):
            batches[-1].append(index)
        else:
            longest = max(lengths[index], 1)
            batches.append([index])
    return batches


def plan_cheapest(lengths: Sequence[int], budget: int, pass_tokens: int) -> list[list[int]]:
    """Indices, longest first, in the batches that cost least: padded tokens, and `pass_tokens` for every batch.

    Within the budget as in `plan_batches`, which fills every batch and so pads a few texts of mixed length by half. The
    best cut of the sorted lengths, by dynamic programming; of use where a pass costs few tokens, which is on CPUs.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    # Of the first n: what they cost, and where their last batch begins.
    cost = [0.0] + [inf] * len(order)
    cut = [0] * (len(order) + 1)
    for start, index in enumerate(order):
        longest = max(lengths[index], 1)
        for end in range(start + 1, min(len(order), start + max(budget // longest, 1)) + 1):
            total = cost[start] + (end - start) * longest + pass_tokens
            if total < cost[end]:
                cost[end], cut[end] = total, start
    batches = []
    end = len(order)
    while end:
        batches.append(order[cut[end] : end])
        end = cut[end]
    return batches[::-1]
