"""Where the two arms disagree: pairs of labels, who was right, and which rows, by id and hash, without a text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.schema import Dimension, load_schema
from classifier.types import Labels
from training.corpus.rows import Label, text_key
from training.jobs.measures import admit

DIMENSIONS = ("risk", "emotion")
MAX_ROWS = 50
"""Rows that a report names for each dimension; the counts are of all."""
BERT, LLM, BOTH, NEITHER, UNKNOWN = "bert", "llm", "both", "neither", "unknown"
"""Who was right. Where they differ both can be under a truth alone that admits several values."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One text with its truth as far as known, the labels of each arm alone, and those of the whole."""

    id: str
    text: str
    source: str
    truth: Mapping[str, Label]
    bert: Labels
    llm: Labels
    whole: Labels


def report_conflicts(rows: Sequence[Judged]) -> dict[str, Any]:
    """Of the rows that both arms answered."""
    both = [row for row in rows if row.bert and row.llm]
    return {name: _report(both, load_schema()[name]) for name in DIMENSIONS}


def _report(rows: Sequence[Judged], dimension: Dimension) -> dict[str, Any]:
    name = dimension.name
    differing = [(row, _who(row, dimension)) for row in rows if row.bert[name] != row.llm[name]]
    pairs = Counter((row.bert[name], row.llm[name]) for row, _ in differing)
    sources = Counter(row.source for row in rows)
    return {
        "rows": len(rows),
        "differ": len(differing),
        "right": _count([who for _, who in differing]),
        "pairs": [
            {"bert": bert, "llm": llm, "count": count}
            | _count([who for row, who in differing if (row.bert[name], row.llm[name]) == (bert, llm)])
            for (bert, llm), count in pairs.most_common()
        ],
        "sources": [
            {"source": source, "rows": total, "differ": len(found)} | _count(found)
            for source, total in sorted(sources.items())
            if (found := [who for row, who in differing if row.source == source])
        ],
        "named_rows": [_name_row(row, who, name) for row, who in differing[:MAX_ROWS]],
    }


def _who(row: Judged, dimension: Dimension) -> str:
    allowed = admit(row.truth.get(dimension.name), dimension)
    if allowed is None:
        return UNKNOWN
    bert, llm = (allowed[dimension.index(labels[dimension.name])] for labels in (row.bert, row.llm))
    return BOTH if bert and llm else BERT if bert else LLM if llm else NEITHER


def _count(found: Sequence[str]) -> dict[str, int]:
    return {
        f"{who}_right" if who in (BERT, LLM, BOTH) else who: found.count(who)
        for who in (BERT, LLM, BOTH, NEITHER, UNKNOWN)
    }


def _name_row(row: Judged, who: str, name: str) -> dict[str, Any]:
    truth = row.truth.get(name)
    return {
        "id": row.id,
        "hash": text_key(row.text)[:16],
        "source": row.source,
        "bert": row.bert[name],
        "llm": row.llm[name],
        "whole": row.whole.get(name),
        "truth": dict(truth) if isinstance(truth, Mapping) else truth,
        "right": who,
    }
