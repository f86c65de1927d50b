"""Model versions and the append-only history of releases. Publishing is a compare-and-swap on the newest row."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from filelock import FileLock

from classifier.bundle import manifest_sha256, read_manifest, verify_bundle
from classifier.errors import ReleaseConflict
from training.errors import NothingToRestore
from training.models import ModelVersion, Release, TrainingRun, serving_release
from training.queue import enqueue_converge

logger = logging.getLogger(__name__)

POINTER_NAME = "serving.json"


@dataclass(frozen=True, slots=True)
class Publication:
    """What a new release is made of. `bundle` is any folder: it is copied below RELEASES_DIR first."""

    bundle: Path
    kind: Release.Kind
    name: str = ""
    """Blank: the next number, r0002."""
    version: ModelVersion | None = None
    restores: Release | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    by_id: int | None = None


def register_version(run: TrainingRun, made: Mapping[str, Any], metrics: Mapping[str, Any]) -> ModelVersion:
    """The weights a run made. Idempotent: a run has one version."""
    version, _ = ModelVersion.objects.update_or_create(
        run=run,
        defaults={
            "arm": str(made["arm"]),
            "uri": f"{run.run_dir.name}/part",
            "content_hash": str(made["content_hash"]),
            "metrics": dict(metrics),
        },
    )
    return version


def find_reward_run(run_id: int) -> TrainingRun | None:
    """The reward run of this number, the newest where it is 0; None where it has not succeeded."""
    runs = TrainingRun.objects.filter(kind=TrainingRun.Kind.REWARD, state=TrainingRun.State.SUCCEEDED)
    return (runs.filter(pk=run_id) if run_id else runs).order_by("-id").first()


def publish_release(publication: Publication, *, expected: Release | None) -> Release:
    """Append a release that follows `expected`. Raises ReleaseConflict where another one follows it already."""
    folder = keep_bundle(publication.bundle)
    try:
        with transaction.atomic():
            release = Release.objects.create(
                name=publication.name or f"r{Release.objects.count() + 1:04d}",
                kind=publication.kind,
                bundle_uri=folder.relative_to(settings.RELEASES_DIR).as_posix(),
                manifest_hash=manifest_sha256(folder),
                previous=expected,
                restores=publication.restores,
                version=publication.version,
                report=dict(publication.report),
                reason=publication.reason,
                created_by_id=publication.by_id,
            )
            transaction.on_commit(announce)
    except IntegrityError as error:
        # `previous` is one-to-one: the database lets a single release follow another.
        raise ReleaseConflict(
            f"another release was published after {expected.name if expected else 'none'}: look at it, then try again"
        ) from error
    logger.info("release %s published (%s)", release.name, release.kind)
    return release


def roll_back(release: Release, *, by_id: int | None, reason: str) -> Release:
    """Serve the bundle of an earlier release again, as a new release. Raises NothingToRestore or ReleaseConflict."""
    serving = serving_release()
    if serving is None or serving.manifest_hash == release.manifest_hash:
        raise NothingToRestore(f"the bundle of {release.name} serves already")
    if not bundle_path(release).is_dir():
        raise NothingToRestore(f"the bundle of {release.name} is no longer on disk: choose another release")
    publication = Publication(
        bundle=bundle_path(release),
        kind=Release.Kind.ROLLBACK,
        version=release.version,
        restores=release,
        report=release.report,
        reason=reason,
        by_id=by_id,
    )
    return publish_release(publication, expected=serving)


def ensure_starter_release(bundle: Path) -> Release:
    """The first release, made from a bundle on disk; where there is a history already, the release that serves."""
    serving = serving_release()
    if serving is None:
        publication = Publication(
            bundle=bundle,
            kind=Release.Kind.STARTER,
            name=read_manifest(bundle).name,
            report=_read_figures(bundle),
            reason="starter bundle",
        )
        try:
            return publish_release(publication, expected=None)
        except ReleaseConflict:
            serving = Release.objects.latest("id")
    write_pointer()
    return serving


def _read_figures(bundle: Path) -> dict[str, Any]:
    """The report that lies beside a shipped bundle, where there is one."""
    path = bundle.with_name(f"{bundle.name}.json")
    found = _read(path) if path.is_file() else None
    return found if isinstance(found, dict) else {}


def keep_ablation(release: Release, ablation: Mapping[str, Any]) -> None:
    """In place of the one before: it says the same of the same bundle, on newer rows."""
    with transaction.atomic():
        current = Release.objects.select_for_update(of=("self",)).get(pk=release.pk)
        current.report = {**current.report, "ablation": dict(ablation)}
        current.save(update_fields=["report"])


def bundle_path(release: Release) -> Path:
    return Path(settings.RELEASES_DIR) / release.bundle_uri


def keep_bundle(bundle: Path) -> Path:
    """The bundle's own folder below RELEASES_DIR, named by its hash; a new one is verified and copied there first."""
    kept = Path(settings.RELEASES_DIR) / "bundles"
    target = kept / manifest_sha256(bundle)[:16]
    if target.is_dir():
        return target
    verify_bundle(bundle)
    kept.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".copy-", dir=kept))
    try:
        shutil.copytree(bundle, work / "bundle", copy_function=shutil.copyfile)
        verify_bundle(work / "bundle")
        try:
            (work / "bundle").rename(target)
        except OSError:
            # Another publisher was faster with the same bytes.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def announce() -> None:
    """After commit: move the pointer that inference servers follow, and have the move checked."""
    write_pointer()
    enqueue_converge()


def write_pointer() -> bool:
    """Make `serving.json` name the newest release. False where it does already, or there is none yet.

    The newest row is read inside the lock: of two publishers that get here out of order, none can move it back.
    """
    folder = Path(settings.RELEASES_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".pointer.lock", timeout=30):
        release = serving_release()
        if release is None:
            return False
        wanted = {
            "release": release.name,
            "bundle": release.bundle_uri,
            "manifest_sha256": release.manifest_hash,
        }
        pointer = folder / POINTER_NAME
        if pointer.is_file() and _read(pointer) == wanted:
            return False
        draft = folder / f".{POINTER_NAME}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(wanted, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(pointer)
        return True


def _read(pointer: Path) -> object:
    try:
        return json.loads(pointer.read_text(encoding="utf-8"))
    except ValueError:
        return None
