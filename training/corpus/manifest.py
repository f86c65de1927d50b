"""What a snapshot says of itself, and what differs between two of them. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from classifier.schema import load_schema
from training.corpus.annotators import Panel, share_masses
from training.corpus.bank import count_labels
from training.corpus.compile import IMPORT, FeedbackRecord, JudgedText
from training.corpus.rows import Row

if TYPE_CHECKING:
    from training.corpus.snapshot import Draft

FORMAT = 2
REASONS: Mapping[str, str] = {
    "replaced": "verdicts that their author replaced later",
    "unsure": "verdicts “unsure”",
    "skip": "skipped texts",
    "empty": "verdicts that judged nothing and name no label",
    "held_out": "texts of an evaluation set: a release must not learn what it is measured on",
    "gold": "gold items: annotators are measured on them",
    "same_text": "texts that differ from another by case, spacing or punctuation alone",
    "untrusted": "texts answered only by people whose answers are no better than chance",
    "no_correction": "texts of which people say only that the labels are wrong: no label row",
    "not_whole": "verdicts on some dimensions only: no line to prefer or to reject",
    "tie": "label lines on which voices are even: no preference row",
    "held_out_side": "preference rows of held-out texts",
    "bank_beyond_replay": "rows of the corpus beyond those replayed",
}
"""Why something is not in the training rows -> the words for it. `left_out` of a manifest counts them."""


def describe(draft: "Draft", content_hash: str) -> dict[str, Any]:
    """The manifest. The same input gives the same one."""
    return {
        "format": FORMAT,
        "content_hash": content_hash,
        "schema_version": load_schema().version,
        "options": asdict(draft.options),
        "records": len(draft.records),
        "verdicts": _count(record.verdict for record in draft.records),
        "guideline_versions": sorted({record.guideline_version for record in draft.records}),
        "annotators": len({record.annotator for record in draft.records}),
        "weights": draft.panel.why,
        "people": list_people(draft.records, draft.texts, draft.panel),
        "rows": {split: len(rows) for split, rows in draft.splits.items()},
        "feedback_rows": {split: sum(row.source == "feedback" for row in rows) for split, rows in draft.splits.items()},
        "preference_rows": {
            "kto": len(draft.preferences.kto),
            "pairs": len(draft.preferences.pairs),
            "rewards": len(draft.preferences.rewards),
        },
        "labels": {split: count_labels(rows) for split, rows in draft.splits.items()},
        "feedback_labels": count_labels(row for rows in draft.splits.values() for row in rows if _is_feedback(row)),
        "sources": {split: _count_sources(rows, draft) for split, rows in draft.splits.items()},
        "left_out": {reason: draft.left_out[reason] for reason in REASONS if draft.left_out[reason]},
    }


def _is_feedback(row: Row) -> bool:
    return row.source == "feedback"


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _count_sources(rows: Sequence[Row], draft: "Draft") -> dict[str, int]:
    """The bank as one; feedback by the way it came in."""
    origins = {text.id: text.origin for text in draft.texts}
    return _count(f"feedback: {origins[row.id]}" if _is_feedback(row) else row.source.partition(":")[0] for row in rows)


def list_people(
    records: Sequence[FeedbackRecord], texts: Sequence[JudgedText], panel: Panel
) -> dict[str, dict[str, Any]]:
    """Pseudonym -> verdicts, texts, share of all weight, and what it comes from. Imported answers, each of an unknown
    person, are one line."""
    masses = share_masses([[(voice.annotator, voice.weight) for voice in text.voices] for text in texts])
    total = sum(masses.values()) or 1.0
    imported = {record.annotator for record in records if record.origin == IMPORT}
    shares: dict[str, float] = {}
    for annotator, mass in masses.items():
        name = _name(annotator, imported)
        shares[name] = shares.get(name, 0.0) + mass / total
    verdicts = Counter(_name(record.annotator, imported) for record in records)
    answered = Counter(name for text in texts for name in {_name(voice.annotator, imported) for voice in text.voices})
    return {
        name: {
            "verdicts": verdicts[name],
            "texts": answered[name],
            "share": round(shares.get(name, 0.0), 4),
            "trust": round(panel.trust(name), 4),
            "shared_votes": panel.skills[name].shared_votes if name in panel.skills else 0,
            "capped_to": round(panel.factor(name), 4),
        }
        for name in sorted(verdicts, key=lambda name: (-round(shares.get(name, 0.0), 4), name))
    }


def _name(annotator: str, imported: set[str]) -> str:
    return IMPORT if annotator in imported else annotator


@dataclass(frozen=True, slots=True)
class Difference:
    """`before` or `after` is None where one of the two does not have it."""

    group: str
    name: str
    before: Any
    after: Any


COMPARED = (
    "options", "schema_version", "guideline_versions", "weights", "records", "verdicts", "rows", "feedback_rows",
    "preference_rows", "labels", "sources", "people", "left_out",
)  # fmt: skip


def diff_manifests(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs, in the order of COMPARED. Equal manifests give nothing, whatever their formats."""
    differences = []
    for group in COMPARED:
        old, new = (_flatten(manifest.get(group)) for manifest in (before, after))
        for name in [*old, *(name for name in new if name not in old)]:
            if old.get(name) != new.get(name):
                differences.append(Difference(group, name, old.get(name), new.get(name)))
    return differences


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """`{"train": {"risk": {"high": 3}}}` to `{"train risk high": 3}`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{name} {key}".strip())
    return flat
