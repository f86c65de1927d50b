"""Held-out rows whose answer a run changed, for people to look at. By id: no text travels with the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from classifier.schema import Schema
from training.corpus.rows import Row, likeliest

SHOWN = 8
"""Of those that got worse and of those that got better, each."""
Answer = Mapping[str, str]


def pick_samples(
    rows: Sequence[Row], before: Sequence[Answer], after: Sequence[Answer], schema: Schema
) -> dict[str, Any]:
    """How many rows got `better` and `worse`, and those among them whose answers moved furthest, worse ones first."""
    moved: list[tuple[float, dict[str, Any]]] = []
    for row, old, new in zip(rows, before, after, strict=True):
        wanted = {name: value for name, label in row.labels.items() if (value := likeliest(label)) is not None}
        gain = cost_of(wanted, old, schema) - cost_of(wanted, new, schema)
        if gain:
            sample = {"row": row.id, "source": row.source.partition(":")[0], "gain": round(gain, 3)}
            moved.append((gain, sample | {"wanted": wanted, "before": dict(old), "after": dict(new)}))
    moved.sort(key=lambda pair: (pair[0], pair[1]["row"]))
    worse = [sample for gain, sample in moved if gain < 0]
    better = [sample for gain, sample in reversed(moved) if gain > 0]
    return {
        "rows": len(rows),
        "better": len(better),
        "worse": len(worse),
        "shown": worse[:SHOWN] + better[:SHOWN],
    }


def cost_of(wanted: Answer, answered: Answer, schema: Schema) -> float:
    """What an answer costs by the schema, summed; a text that could not be scored costs as much as the worst one."""
    total = 0.0
    for name, value in wanted.items():
        costs = schema[name].cost[value]
        said = answered.get(name)
        total += max(costs.values()) if said is None else costs.get(said, 0.0)
    return total
