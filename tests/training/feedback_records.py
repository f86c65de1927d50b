"""Records of feedback for the tests of what is compiled from them."""

from datetime import UTC, datetime
from typing import Any

from training.corpus.compile import Compiled, CompileOptions, FeedbackRecord, compile_feedback
from training.corpus.rows import text_key
from training.corpus.verdict_rows import Preferences, compile_preferences

A = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}
B = {"emotion": "sadness", "sentiment": "negative", "stress": "medium", "risk": "low"}
HIGH = {"emotion": "self_harm_high", "sentiment": "negative", "stress": "high", "risk": "high"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def record(text: str = "the bus was late", **changes: Any) -> FeedbackRecord:
    """p1 says that A is correct; changes say otherwise."""
    plain: dict[str, Any] = {
        "text": text,
        "text_hash": text_key(text),
        "verdict": "correct",
        "judged_labels": A,
        "labels": {},
        "annotator": "p1",
        "created_at": NOON,
        "guideline_version": "1",
        "origin": "web",
    }
    return FeedbackRecord(**plain | changes)


def correction(text: str = "the bus was late", **changes: Any) -> FeedbackRecord:
    """p1 corrects A to B."""
    return record(text, **{"verdict": "corrected", "labels": B} | changes)


def compiled(*records: FeedbackRecord, **options: Any) -> Compiled:
    return compile_feedback(records, CompileOptions(**options))


def preferred(*records: FeedbackRecord) -> Preferences:
    found = compiled(*records)
    return compile_preferences(found.texts, found.panel)
