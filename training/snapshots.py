"""Snapshots as rows: freezing one, previewing one, and what differs from the one before. Imports no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from training.corpus.compile import FeedbackRecord
from training.corpus.manifest import Difference, diff_manifests
from training.corpus.snapshot import FrozenRows, Setting, SnapshotOptions, freeze, parse_snapshot_options, preview
from training.corpus.splits import read_sides
from training.jobs.config import ConfigError
from training.models import DatasetSnapshot


@dataclass(frozen=True, slots=True)
class Preview:
    """`last`: the newest snapshot, None before the first. `same`: the snapshot that has this very content already."""

    manifest: Mapping[str, Any]
    last: DatasetSnapshot | None
    same: DatasetSnapshot | None
    differences: list[Difference]


def freeze_snapshot(
    records: Iterable[FeedbackRecord], *, by_id: int | None, options: Mapping[str, Any] | None = None
) -> DatasetSnapshot:
    """The rows of now, immutable. The same content gives the same snapshot. Raises ConfigError."""
    parsed = _parse(options)
    return register(freeze(list(records), parsed, Path(settings.SNAPSHOTS_DIR), _setting(newest())), by_id=by_id)


def preview_snapshot(records: Iterable[FeedbackRecord], options: Mapping[str, Any] | None = None) -> Preview:
    """What `freeze_snapshot` would make. Raises ConfigError."""
    last = newest()
    manifest = preview(list(records), _parse(options), _setting(last))
    same = DatasetSnapshot.objects.filter(content_hash=manifest["content_hash"]).first()
    return Preview(manifest, last, same, diff_manifests(last.manifest, manifest) if last else [])


def diff_to_previous(snapshot: DatasetSnapshot) -> tuple[DatasetSnapshot | None, list[Difference]]:
    """The snapshot made before this one, and what has changed since."""
    before = DatasetSnapshot.objects.filter(pk__lt=snapshot.pk).order_by("-id").first()
    return before, diff_manifests(before.manifest, snapshot.manifest) if before else []


def register(frozen: FrozenRows, *, by_id: int | None) -> DatasetSnapshot:
    """The row of a snapshot on disk; the one that is there where the content is known."""
    snapshot, _ = DatasetSnapshot.objects.get_or_create(
        content_hash=frozen.content_hash,
        defaults={
            "uri": str(frozen.folder),
            "manifest": frozen.manifest,
            "rows": frozen.rows,
            "created_by_id": by_id,
        },
    )
    return snapshot


def newest() -> DatasetSnapshot | None:
    return DatasetSnapshot.objects.order_by("-id").first()


def _setting(last: DatasetSnapshot | None) -> Setting:
    return Setting(sides=read_sides(Path(last.uri)) if last else {})


def _parse(options: Mapping[str, Any] | None) -> SnapshotOptions:
    try:
        return parse_snapshot_options(dict(options or {}))
    except ValueError as error:
        raise ConfigError(str(error)) from error
