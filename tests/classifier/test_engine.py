"""The engine alone, in one loop, on toy bundles: what a roll back costs, and what a refused bundle leaves behind."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from classifier import api
from classifier.engine import Engine, EngineOptions
from classifier.errors import BundleError, GoldenCheckFailed
from tests.classifier.toys import make_bundle

TEXT = "a text of the test"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    for seed, name in enumerate(("one", "two", "three"), 1):
        make_bundle(folder, name=name, seed=seed)
    return folder


def run(bundles: Path, use: Callable[[Engine, list[str]], Coroutine[Any, Any, None]], **options: Any) -> None:
    """An engine that serves `one` as r1, and the names of the bundles it has loaded."""
    loaded: list[str] = []

    def load(bundle: Path, release: str) -> api.Classifier:
        loaded.append(bundle.name)
        return api.load(bundle, release=release, base_models=bundles / "base_models")

    async def main() -> None:
        engine = Engine(load, api.check_golden_or_raise, EngineOptions(**options))
        engine.start()
        try:
            await engine.swap(release="r1", bundle=bundles / "one", expected=None)
            await use(engine, loaded)
        finally:
            await engine.stop()

    asyncio.run(main())


def test_a_roll_back_serves_the_kept_bundle_without_loading_it(bundles: Path) -> None:
    async def use(engine: Engine, loaded: list[str]) -> None:
        _, first = await engine.decide([TEXT])
        await engine.swap(release="r2", bundle=bundles / "two", expected="r1")
        await engine.swap(release="r3", bundle=bundles / "one", expected="r2")
        assert loaded == ["one", "two"]
        release, (again,) = await engine.decide([TEXT])
        assert (release, again.release) == ("r3", "r3")
        assert again.probabilities == first[0].probabilities
        # And forward again: `two` was kept in its turn.
        await engine.swap(release="r4", bundle=bundles / "two", expected="r3")
        assert loaded == ["one", "two"]

    run(bundles, use)


def test_a_third_bundle_is_loaded_and_the_oldest_let_go(bundles: Path) -> None:
    async def use(engine: Engine, loaded: list[str]) -> None:
        await engine.swap(release="r2", bundle=bundles / "two", expected="r1")
        await engine.swap(release="r3", bundle=bundles / "three", expected="r2")
        await engine.swap(release="r4", bundle=bundles / "one", expected="r3")
        assert loaded == ["one", "two", "three", "one"]

    run(bundles, use)


def test_freeing_first_answers_the_requests_that_waited(bundles: Path) -> None:
    async def use(engine: Engine, loaded: list[str]) -> None:
        swap = asyncio.create_task(engine.swap(release="r2", bundle=bundles / "two", expected="r1"))
        while engine.serving is not None:
            await asyncio.sleep(0)
        assert (await engine.decide([TEXT]))[0] == "r2"
        await swap

    run(bundles, use, free_first=True)


def test_freeing_first_brings_the_old_bundle_back_when_the_new_one_is_refused(bundles: Path) -> None:
    async def use(engine: Engine, loaded: list[str]) -> None:
        with pytest.raises(BundleError):
            await engine.swap(release="r2", bundle=bundles / "nowhere", expected="r1")
        assert (await engine.decide([TEXT]))[0] == "r1"

    run(bundles, use, free_first=True)


def test_a_bundle_that_fails_the_golden_check_never_serves(bundles: Path, tmp_path: Path) -> None:
    wrong = {"I went to the store": {"emotion": "stress", "risk": "high", "stress": "high", "sentiment": "negative"}}
    make_bundle(tmp_path, name="wrong", answers=wrong)

    async def use(engine: Engine, loaded: list[str]) -> None:
        with pytest.raises(GoldenCheckFailed, match="statement 5"):
            await engine.swap(release="r2", bundle=tmp_path / "wrong", expected="r1")
        assert (await engine.decide([TEXT]))[0] == "r1"

    run(bundles, use)
