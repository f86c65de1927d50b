"""Figures to a tracker of one's own, through the trainers' `report_to`. Off by default; nothing is sent anywhere else.

Where a tracker's data goes is set on the worker: TRACKIO_DIR or MLFLOW_TRACKING_URI, both a local folder by default.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from training.jobs.config import TRACKERS, ConfigError, Options


def choose_trackers(options: Options, run_dir: Path) -> list[str]:
    """What `report_to` of TrainingArguments gets. Raises ConfigError where the tracker is not installed."""
    wanted = str(getattr(options, "report_to", "none"))
    if wanted == "none":
        return ["none"]
    if wanted not in installed_trackers():
        raise ConfigError(f"report_to is {wanted}, which is not installed: pip install {wanted}, or set it to none")
    # The trainers name a run after its folder of checkpoints, which all runs share.
    os.environ.setdefault("MLFLOW_RUN_NAME", run_dir.name)
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", "heed")
    return [wanted]


def installed_trackers() -> Sequence[str]:
    return [name for name in TRACKERS if name != "none" and find_spec(name) is not None]
