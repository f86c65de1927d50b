from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.validation import validate_schema

from feedback.access import ROUTES
from feedback.models.labels import SCHEMA
from tests.cast import setup_cast
from tests.feedback.api.client import Program


@pytest.fixture
def ana(db: None) -> Program:
    return Program(setup_cast().ana)


def test_label_schema_has_guidelines_and_keys(ana: Program) -> None:
    body = ana.get("schema").body
    assert [dimension["name"] for dimension in body["dimensions"]] == list(SCHEMA.names)
    assert all(value["guideline"] and value["key"] for value in body["dimensions"][0]["values"])
    assert body["version"] == SCHEMA.version


def test_openapi_describes_every_endpoint(ana: Program) -> None:
    GENERATOR_STATS.reset()
    body: dict[str, Any] = ana.get("openapi.json").body
    assert not GENERATOR_STATS, "drf-spectacular could not describe something: see its warnings"
    validate_schema(body)  # type: ignore[no-untyped-call]
    described = {(path, method.upper()) for path, methods in body["paths"].items() for method in methods}
    declared = [(name, method) for name, verb in ROUTES.items() if not isinstance(verb, str) for method in verb]
    assert len(described) == len(declared) - 1  # the document does not describe itself
    assert body["paths"]["/api/v1/annotations"]["post"]["operationId"] == "submitAnnotation"


def test_every_answer_is_json_whatever_is_asked_for(ana: Program) -> None:
    response = ana.client.get(
        "/api/v1/schema?format=xml", headers={"authorization": f"Bearer {ana.token}", "accept": "text/html"}
    )
    assert response["Content-Type"] == "application/json"


def test_wrong_method_has_the_one_error_shape(ana: Program) -> None:
    answer = ana.post("schema", {})
    assert (answer.status, answer.body["error"]) == (405, "method_not_allowed")


def test_anonymous_is_told_how_to_come_in(db: None, client: Client) -> None:
    response = client.get("/api/v1/schema")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
    assert response.json()["error"] == "not_authenticated"


def test_session_needs_the_csrf_token(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(setup_cast().ana)
    assert client.get("/api/v1/schema").status_code == 200
    assert client.post("/api/v1/annotations/claim", {}, content_type="application/json").status_code == 403
