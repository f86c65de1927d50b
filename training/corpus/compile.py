"""From feedback to rows: design.md's table as a pure function. The same records in any order give the same rows.

| record                          | row                                              |
| predicted a, correct            | (x, a)                                           |
| predicted a, corrected to b     | (x, b); a dimension without correction is unknown |
| predicted a, incorrect          | none                                             |
| unsure, skip                    | none                                             |
| annotators disagree             | soft labels: each answer's share of the votes    |
| a moderator's correction        | settles the dimensions it names                  |
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from classifier.schema import load_schema
from training.corpus.rows import Label, Row

ANSWERS = ("correct", "corrected")
"""Verdicts that say which labels are right; `incorrect` without a correction says only which are wrong."""


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """What one person said about one text. `labels` are those the person says are right, partial or empty."""

    text: str
    text_hash: str
    verdict: str
    judged_labels: Mapping[str, str]
    labels: Mapping[str, str]
    annotator: str
    created_at: datetime
    guideline_version: str
    origin: str


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """`feedback_weight`: how many bank rows one corrected text counts for."""

    feedback_weight: float = 2.0
    disagreement: Literal["soft", "majority"] = "soft"


def compile_rows(records: Iterable[FeedbackRecord], options: CompileOptions | None = None) -> list[Row]:
    """One row for each text that somebody answered, ordered by id."""
    options = options or CompileOptions()
    texts: dict[str, list[FeedbackRecord]] = {}
    for record in standing_records(records):
        texts.setdefault(record.text_hash, []).append(record)
    rows = []
    for text_hash, votes in sorted(texts.items()):
        labels = merge_labels(votes, options.disagreement)
        if labels:
            rows.append(Row(f"feedback-{text_hash[:16]}", votes[0].text, labels, "feedback", options.feedback_weight))
    return rows


def standing_records(records: Iterable[FeedbackRecord]) -> list[FeedbackRecord]:
    """The last word of each person on each text, whatever its verdict: a later skip takes an answer back."""
    standing: dict[tuple[str, str], FeedbackRecord] = {}
    for record in sorted(records, key=lambda item: (item.created_at, item.verdict, sorted(item.labels.items()))):
        standing[record.text_hash, record.annotator] = record
    return sorted(standing.values(), key=lambda item: (item.text_hash, item.annotator))


def answer_of(record: FeedbackRecord) -> Mapping[str, str]:
    """The labels a record says are right: empty where it says none."""
    if record.verdict not in ANSWERS:
        return {}
    if record.verdict == "correct":
        return record.labels or record.judged_labels
    return record.labels


def merge_labels(votes: Sequence[FeedbackRecord], disagreement: Literal["soft", "majority"]) -> dict[str, Label]:
    """The labels of one text; a dimension nobody answered is absent."""
    merged: dict[str, Label] = {}
    for name in load_schema().names:
        given = [vote for vote in votes if name in answer_of(vote)]
        # The moderator has seen the case as a whole, and decided it in earnest: that word stands above votes.
        deciding = [vote for vote in given if vote.origin == "moderation"]
        if deciding:
            given = [max(deciding, key=lambda vote: (vote.created_at, vote.annotator))]
        counts = Counter(answer_of(vote)[name] for vote in given)
        label = _settle(name, counts, disagreement)
        if label is not None:
            merged[name] = label
    return merged


def _settle(name: str, counts: Mapping[str, int], disagreement: Literal["soft", "majority"]) -> Label | None:
    if not counts:
        return None
    ranked = sorted(counts.items(), key=lambda item: (-item[1], load_schema()[name].index(item[0])))
    if len(ranked) == 1:
        return ranked[0][0]
    if disagreement == "majority" and ranked[0][1] > ranked[1][1]:
        return ranked[0][0]
    total = sum(counts.values())
    return {value: counts[value] / total for value in load_schema()[name].names if value in counts}
