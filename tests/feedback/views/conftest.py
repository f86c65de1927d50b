from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.test import Client

if TYPE_CHECKING:
    from tests.cast import Cast


@pytest.fixture
def cast(db: None) -> Cast:
    from tests.cast import setup_cast

    return setup_cast()


def _client(username: str) -> Client:
    from feedback.models import Person

    client = Client()
    client.force_login(Person.objects.get(username=username))
    return client


@pytest.fixture
def ana(cast: Cast) -> Client:
    return _client("ana")


@pytest.fixture
def mo(cast: Cast) -> Client:
    return _client("mo")


@pytest.fixture
def ada(cast: Cast) -> Client:
    return _client("ada")


@pytest.fixture
def otto(cast: Cast) -> Client:
    return _client("otto")
