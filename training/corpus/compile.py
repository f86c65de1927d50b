"""From feedback to rows: design.md's table as a pure function. The same records in any order give the same rows.

| record                      | label row   | kto row              | pair           | reward                 |
| predicted a, correct        | (x, a)      | a wanted             | –              | r(a) = 1               |
| predicted a, corrected to b | (x, b)      | a unwanted, b wanted | b above a      | r(b) = 1, r(a) = -cost |
| predicted a, incorrect      | –           | a unwanted           | –              | see `verdict_rows`     |
| unsure, skip                | –           | –                    | –              | –                      |
| annotators disagree         | soft labels | weight = agreement   | label-smoothed | share of the voices    |
| a moderator's correction    | settles the dimensions it names, in every column                   |

A dimension without correction is unknown to label rows and rewards; kto rows and pairs, whose lines must be whole, take
the judged label there. This module makes the label rows, `verdict_rows` the other three.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from classifier.schema import Dimension, load_schema
from training.corpus.annotators import Panel, Vote, Word, believe, cap_influence, fit_panel, share_masses
from training.corpus.rows import Label, Row, text_key

ANSWERS = ("correct", "corrected")
"""Verdicts that say which labels are right; `incorrect` without a correction says only which are wrong."""
IMPORT = "import"
MODERATION = "moderation"


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
    """`feedback_weight`: how many bank rows one corrected text counts for.

    `influence_cap`: the largest share of all feedback that one annotator may have. At the default nobody outvotes all
    others together.
    """

    feedback_weight: float = 2.0
    disagreement: Literal["soft", "majority"] = "soft"
    influence_cap: float = 0.5


@dataclass(frozen=True, slots=True)
class Voice:
    """One verdict, after moderators had their say. `answer` is empty where it says only that `judged` is wrong."""

    annotator: str
    worker: str
    origin: str
    is_correction: bool
    judged: Mapping[str, str]
    answer: Mapping[str, str]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class JudgedText:
    """What all people say of one text. `settled`: the dimensions that a moderator decided."""

    id: str
    text: str
    origin: str
    settled: Mapping[str, str]
    voices: Sequence[Voice]

    @property
    def weight(self) -> float:
        return sum(voice.weight for voice in self.voices) / len(self.voices)

    def words(self, dimension: str) -> list[Word]:
        """Who gives which value."""
        return [
            Word(voice.answer[dimension], voice.annotator, voice.worker, voice.weight)
            for voice in self.voices
            if dimension in voice.answer
        ]


@dataclass(frozen=True, slots=True)
class Compiled:
    """`left_out`: reason -> count; the reasons are those of `manifest.REASONS`."""

    rows: list[Row]
    texts: list[JudgedText]
    panel: Panel
    left_out: Counter[str]


def compile_feedback(
    records: Iterable[FeedbackRecord],
    options: CompileOptions | None = None,
    excluded: Mapping[str, Container[str]] | None = None,
) -> Compiled:
    """`excluded`: reason -> text keys that must not be learned from. Texts are in the order of their ids."""
    options = options or CompileOptions()
    left_out: Counter[str] = Counter()
    texts = _gather(list(records), excluded or {}, left_out)
    votes = [vote for text in texts for vote in _votes(text)]
    panel = fit_panel(votes)
    panel = replace(panel, factors=_cap([_weigh(text, panel) for text in texts], options.influence_cap))
    trusted = [weighed for text in texts if (weighed := _weigh(text, panel)).voices]
    left_out["untrusted"] += len(texts) - len(trusted)
    rows = []
    for text in trusted:
        labels = label_text(text, panel, options.disagreement)
        if labels:
            rows.append(Row(text.id, text.text, labels, "feedback", options.feedback_weight * text.weight))
    left_out["no_correction"] += len(trusted) - len(rows)
    return Compiled(rows, trusted, panel, +left_out)


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


def _gather(
    records: Sequence[FeedbackRecord], excluded: Mapping[str, Container[str]], left_out: Counter[str]
) -> list[JudgedText]:
    standing = standing_records(records)
    left_out["replaced"] += len(records) - len(standing)
    groups: dict[str, list[FeedbackRecord]] = {}
    for record in standing:
        if answer_of(record) or (record.verdict == "incorrect" and record.judged_labels):
            groups.setdefault(record.text_hash, []).append(record)
        else:
            left_out[record.verdict if record.verdict in ("unsure", "skip") else "empty"] += 1
    texts, seen = [], set[str]()
    for group in groups.values():
        key = text_key(group[0].text)
        reason = next((reason for reason, keys in excluded.items() if key in keys), None)
        # Spellings of one text (case, punctuation) count once: the first by id.
        reason = reason or ("same_text" if key in seen else None)
        seen.add(key)
        if reason:
            left_out[reason] += 1
        else:
            texts.append(_judge(group))
    return texts


def _judge(records: Sequence[FeedbackRecord]) -> JudgedText:
    first = min(records, key=lambda record: (record.origin != MODERATION, record.created_at, record.annotator))
    settled = _settle(records)
    return JudgedText(
        f"feedback-{first.text_hash[:16]}",
        records[0].text,
        first.origin,
        settled,
        [_hear(record, settled) for record in records],
    )


def _settle(records: Sequence[FeedbackRecord]) -> dict[str, str]:
    """The moderator has seen the case as a whole, and decided it in earnest: that word stands above votes."""
    deciding = sorted(
        (record for record in records if record.origin == MODERATION),
        key=lambda record: (record.created_at, record.annotator),
    )
    return {name: value for record in deciding for name, value in answer_of(record).items()}


def _hear(record: FeedbackRecord, settled: Mapping[str, str]) -> Voice:
    answer = {name: settled.get(name, value) for name, value in answer_of(record).items()}
    return Voice(
        annotator=record.annotator,
        worker=IMPORT if record.origin == IMPORT else record.annotator,
        origin=record.origin,
        is_correction=record.verdict == "corrected" or answer != answer_of(record),
        judged=record.judged_labels,
        answer=answer,
    )


def _votes(text: JudgedText) -> list[Vote]:
    """Of the dimensions that no moderator settled: overruled votes were changed, and say nothing of their author."""
    return [
        Vote(text.id, voice.worker, name, value)
        for voice in text.voices
        for name, value in voice.answer.items()
        if name not in text.settled
    ]


def _weigh(text: JudgedText, panel: Panel) -> JudgedText:
    """With the weight of each voice; a voice without any is gone. Moderators answer for themselves."""
    voices = []
    for voice in text.voices:
        trust = 1.0 if voice.origin == MODERATION else panel.trust(voice.worker)
        if trust > 0:
            voices.append(replace(voice, weight=round(trust * panel.factor(voice.annotator), 6)))
    return replace(text, voices=voices)


def _cap(texts: Sequence[JudgedText], cap: float) -> dict[str, float]:
    masses = share_masses([[(voice.annotator, voice.weight) for voice in text.voices] for text in texts])
    return cap_influence(masses, cap)


def label_text(text: JudgedText, panel: Panel, disagreement: Literal["soft", "majority"]) -> dict[str, Label]:
    """The labels of one text; a dimension nobody answered is absent."""
    labels: dict[str, Label] = {}
    for dimension in load_schema().dimensions:
        shares = share_values(text, dimension, panel)
        if shares:
            labels[dimension.name] = _label(shares, disagreement)
    return labels


def share_values(text: JudgedText, dimension: Dimension, panel: Panel) -> dict[str, float]:
    """How far each value is believed to be right; empty where nobody answered."""
    words = text.words(dimension.name)
    return believe(dimension, words, panel) if words else {}


def _label(shares: Mapping[str, float], disagreement: Literal["soft", "majority"]) -> Label:
    best = max(shares.values())
    top = [value for value, share in shares.items() if share == best]
    if len(shares) == 1 or (disagreement == "majority" and len(top) == 1):
        return top[0]
    return dict(shares)
