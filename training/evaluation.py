"""Measure a release again, on rows that somebody brings: the ablation job, its report kept with the release."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from training import registry
from training.errors import RunFailed
from training.jobs.config import read_json
from training.models import Release
from training.process import JobProcess

POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Files:
    """`train`: the rows the release was trained on, for the bag of words; those of its run where they are kept."""

    rows: Sequence[Path]
    suite: Path | None = None
    train: Path | None = None


def evaluate_release(release: Release, files: Files) -> dict[str, Any]:
    """The report, which the release keeps. Raises RunFailed with the job's own words.

    Scores are kept in the folder of the work: asked again after an interruption, it goes on where it was.
    """
    folder = Path(settings.RUNS_DIR) / f"evaluate-{release.name}"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "report" / "report.json"
    made.unlink(missing_ok=True)
    process = JobProcess.start("training.jobs.ablation", folder, _arguments(release, files, folder))
    try:
        while process.wait(POLL_S) is None:
            pass
    finally:
        process.kill()
    if process.returncode != 0 or not made.is_file():
        raise RunFailed(process.explain())
    report = read_json(made)
    registry.keep_ablation(release, report)
    return report


def _arguments(release: Release, files: Files, folder: Path) -> list[str]:
    train = files.train or _find_train(release)
    return [
        *("--bundle", str(registry.bundle_path(release))),
        *("--rows", *(str(path.absolute()) for path in files.rows)),
        *(("--suite", str(files.suite.absolute())) if files.suite else ()),
        *(("--train", str(train.absolute())) if train else ()),
        *("--base-models", str(settings.BASE_MODELS_DIR)),
        *("--cache", str(folder / "scores")),
        *("--out", str(folder / "report")),
    ]


def _find_train(release: Release) -> Path | None:
    run = release.version.run if release.version else None
    path = run.run_dir / "data" / "train.jsonl" if run else None
    return path if path is not None and path.is_file() else None
