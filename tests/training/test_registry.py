"""The history of releases: compare-and-swap, roll back, the pointer."""

import json
import threading
from pathlib import Path

import pytest
from django.db import connection, transaction

from classifier import api as classifier_api
from classifier.errors import BundleError, ReleaseConflict
from tests.classifier.toys import make_bundle
from training import api, registry
from training.models import Release

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def second_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("second"), name="toy-2", seed=2, llm=False)


@pytest.fixture
def starter(var_dir: Path, toys: Path) -> Release:
    return api.ensure_starter_release(toys / "toy-1")


def publish(bundle: Path, expected: Release | None) -> Release:
    return registry.publish_release(registry.Publication(bundle=bundle, kind=Release.Kind.TRAINING), expected=expected)


def pointer(var_dir: Path) -> str:
    return str(json.loads((var_dir / "releases" / "serving.json").read_text(encoding="utf-8"))["release"])


def test_the_starter_is_made_once_and_named_as_its_bundle(starter: Release, toys: Path, var_dir: Path) -> None:
    again = api.ensure_starter_release(toys / "toy-1")
    assert (again.pk, starter.name, starter.kind, pointer(var_dir)) == (starter.pk, "toy-1", "starter", "toy-1")
    assert Release.objects.count() == 1


def test_publishing_copies_the_bundle_and_moves_the_pointer(
    starter: Release, second_bundle: Path, var_dir: Path
) -> None:
    release = publish(second_bundle, starter)
    assert (release.name, release.previous_id, pointer(var_dir)) == ("r0002", starter.pk, "r0002")
    kept = registry.bundle_path(release)
    assert kept.is_relative_to(var_dir / "releases")
    assert classifier_api.serving_bundle() == ("r0002", kept)


def test_an_altered_bundle_is_not_published(starter: Release, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, name="toy-3", seed=3, llm=False)
    (bundle / "prompt.txt").write_text("altered", encoding="utf-8")
    with pytest.raises(BundleError, match="altered"):
        publish(bundle, starter)
    assert Release.objects.count() == 1


def test_of_many_publishers_after_one_release_one_succeeds(
    starter: Release, second_bundle: Path, var_dir: Path
) -> None:
    start, outcomes = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        try:
            outcomes.append(publish(second_bundle, starter).name)
        except ReleaseConflict:
            outcomes.append("conflict")
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 7 + ["r0002"]
    assert Release.objects.count() == 2
    assert pointer(var_dir) == "r0002"


def test_of_two_first_releases_one_succeeds(var_dir: Path, toys: Path, second_bundle: Path) -> None:
    publish(toys / "toy-1", None)
    with pytest.raises(ReleaseConflict):
        publish(second_bundle, None)


def test_a_release_that_is_rolled_back_by_the_database_is_not_announced(
    starter: Release, second_bundle: Path, var_dir: Path
) -> None:
    with transaction.atomic():
        publish(second_bundle, starter)
        transaction.set_rollback(True)
    assert Release.objects.count() == 1
    assert pointer(var_dir) == "toy-1"


def test_rolling_back_appends(starter: Release, second_bundle: Path, var_dir: Path) -> None:
    second = publish(second_bundle, starter)
    third = api.roll_back(starter.pk, by_id=None, reason="the second one misses too much")
    assert [release.name for release in api.list_releases()] == ["r0003", "r0002", "toy-1"]
    assert (third.kind, third.restores_id, third.previous_id) == ("rollback", starter.pk, second.pk)
    assert (third.bundle_uri, third.manifest_hash) == (starter.bundle_uri, starter.manifest_hash)
    assert pointer(var_dir) == "r0003"


def test_rolling_back_to_what_serves_is_refused(starter: Release) -> None:
    with pytest.raises(api.NothingToRestore, match="serves already"):
        api.roll_back(starter.pk, by_id=None, reason="")
    with pytest.raises(Release.DoesNotExist):
        api.roll_back(starter.pk + 1, by_id=None, reason="")


def test_a_lost_pointer_is_written_again(starter: Release, var_dir: Path) -> None:
    (var_dir / "releases" / "serving.json").write_text("{", encoding="utf-8")
    assert registry.write_pointer()
    assert pointer(var_dir) == "toy-1"
    assert not registry.write_pointer()
