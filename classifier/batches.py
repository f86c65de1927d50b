"""Batches of like length, so that little is padded."""

from collections.abc import Sequence


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
