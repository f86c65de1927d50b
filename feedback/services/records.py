"""What people said, in the form that training compiles."""

from __future__ import annotations

from collections.abc import Iterator

from feedback import ml
from feedback.services.feedback_file import pseudonym, standing_annotations


def feedback_records() -> Iterator[ml.FeedbackRecord]:
    """Every standing annotation, read a few at a time."""
    for annotation in standing_annotations().iterator(chunk_size=500):
        yield ml.FeedbackRecord(
            text=annotation.document.text,
            text_hash=annotation.document.text_hash,
            verdict=annotation.verdict,
            judged_labels=annotation.judged_labels,
            labels=annotation.labels,
            annotator=pseudonym(annotation),
            created_at=annotation.created_at,
            guideline_version=annotation.guideline_version,
            origin=annotation.origin,
        )
