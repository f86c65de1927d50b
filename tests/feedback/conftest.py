from __future__ import annotations

from collections.abc import Iterator

import django
import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker, Settings

from tests.inference import TOKEN, InferenceProcess

django.setup()  # the settings' environment is made in tests/conftest.py, after pytest-django has looked for it


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
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
def inference(_inference_process: InferenceProcess, settings: Settings) -> InferenceProcess:
    """A real inference server with a toy bundle, which the settings point to."""
    settings.INFERENCE_URL = _inference_process.url
    settings.INFERENCE_TOKEN = TOKEN
    return _inference_process
