"""One toy bundle and one loaded classifier for all tests of this folder that only read them."""

from pathlib import Path

import pytest

from classifier import api
from tests.classifier import toys


@pytest.fixture(scope="session")
def toy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `base_models` and the bundle `toy-1`. Read only: copy what you change."""
    directory = tmp_path_factory.mktemp("toys")
    toys.make_bundle(directory, answers={"the dog ate my lunch": {"emotion": "sadness", "risk": "low"}})
    return directory


@pytest.fixture(scope="session")
def toy_bundle(toy_dir: Path) -> Path:
    return toy_dir / "toy-1"


@pytest.fixture(scope="session")
def toy_classifier(toy_dir: Path, toy_bundle: Path) -> api.Classifier:
    return api.load(toy_bundle, base_models=toy_dir / "base_models")
