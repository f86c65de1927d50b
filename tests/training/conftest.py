from pathlib import Path
from typing import Any

import pytest

from tests.classifier.toys import make_base_models, make_bundle
from tests.training.toyruns import ANSWERS


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base_models` and the toy bundle `toy-1`."""
    folder = tmp_path_factory.mktemp("toys")
    make_base_models(folder / "base_models")
    make_bundle(folder, name="toy-1", seed=1, llm=False, answers=ANSWERS)
    return folder


@pytest.fixture
def bases(toys: Path) -> Path:
    return toys / "base_models"


@pytest.fixture
def var_dir(settings: Any, tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings and environment of a whole installation below one folder, so that child processes see the same."""
    folder = tmp_path / "var"
    settings.VAR_DIR = folder
    settings.RUNS_DIR = folder / "runs"
    settings.SNAPSHOTS_DIR = folder / "snapshots"
    settings.RELEASES_DIR = folder / "releases"
    settings.BASE_MODELS_DIR = toys / "base_models"
    monkeypatch.setenv("VAR_DIR", str(folder))
    monkeypatch.setenv("HEED_BASE_MODELS", str(toys / "base_models"))
    monkeypatch.setenv("HEED_THREADS", "1")
    return folder
