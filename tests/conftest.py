"""Every test runs on a real PostgreSQL and a real Valkey: those of DATABASE_URL and REDIS_URL, else embedded ones.

The servers start when this file is imported, since the settings are read before any fixture; parallel workers inherit
their addresses through the environment.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.db import connection

from tests.inference import TOKEN, InferenceProcess

IS_PARALLEL_WORKER = "PYTEST_XDIST_WORKER" in os.environ
_stop_at_end: list[object] = []


def _start_servers() -> None:
    from config.embedded import EmbeddedPostgres, EmbeddedValkey

    folder = Path(tempfile.mkdtemp(prefix="heed-test-"))
    _stop_at_end.append(folder)
    for name, server in (
        ("DATABASE_URL", EmbeddedPostgres(folder / "postgres")),
        ("REDIS_URL", EmbeddedValkey(folder / "valkey")),
    ):
        if name not in os.environ:
            os.environ[name] = server.start()
            _stop_at_end.append(server)


def _set_environment() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ["STATICFILES_BACKEND"] = "django.contrib.staticfiles.storage.StaticFilesStorage"
    os.environ["DATABASE_POOL"] = "0"  # a pooled connection would keep the test database from being dropped
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HEED_BERT_RUNTIME"] = "torch"  # an export takes longer than a test; those of the export unset it
    # The base models that `make test` fetched stay where they are; everything written goes to a folder of the test run.
    root = Path(__file__).resolve().parent.parent
    os.environ.setdefault("HEED_BASE_MODELS", str(Path(os.environ.get("VAR_DIR", root / "var")) / "base_models"))
    os.environ["VAR_DIR"] = tempfile.mkdtemp(prefix="heed-test-var-")
    _stop_at_end.append(Path(os.environ["VAR_DIR"]))


if not IS_PARALLEL_WORKER:
    _start_servers()
_set_environment()
django.setup()  # pytest-django looked for the settings' environment before it was made


def pytest_unconfigure(config: pytest.Config) -> None:
    """After the last test; workers own no server."""
    for item in reversed(_stop_at_end):
        if isinstance(item, Path):
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.stop()  # type: ignore[attr-defined]
    _stop_at_end.clear()


@pytest.fixture(autouse=True)
def _fresh_folders(settings: Any, tmp_path: Path) -> None:
    """Each test has its own runs, snapshots and releases."""
    for name in ("RUNS_DIR", "SNAPSHOTS_DIR", "RELEASES_DIR", "MEDIA_ROOT"):
        setattr(settings, name, tmp_path / name.lower())


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Tests with real transactions end by emptying the tables, which the audit chain's trigger refuses elsewhere."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE feedback_auditevent DISABLE TRIGGER audit_is_never_truncated")


@pytest.fixture(scope="session")
def _inference_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceProcess]:
    process = InferenceProcess(tmp_path_factory.mktemp("inference"))
    process.point_to("r0001", process.make_bundle("toy"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def inference(_inference_process: InferenceProcess, settings: Any) -> InferenceProcess:
    """A real inference server with a toy bundle, which the settings point to."""
    settings.INFERENCE_URL = _inference_process.url
    settings.INFERENCE_TOKEN = TOKEN
    return _inference_process
