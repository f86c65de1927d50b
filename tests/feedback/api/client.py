"""A program's view of the API: a Bearer token, JSON in, JSON out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from django.test import Client

from feedback.models import Person
from tests.cast import setup_api_key


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


@dataclass
class Program:
    person: Person
    client: Client = field(default_factory=Client)

    def __post_init__(self) -> None:
        self.token = setup_api_key(self.person)

    def get(self, path: str, **params: str) -> Answer:
        return self.send("GET", path, query_params=params)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.send("POST", path, data=json.dumps(body), content_type="application/json")

    def delete(self, path: str) -> Answer:
        return self.send("DELETE", path)

    def send(self, method: str, path: str, **request: Any) -> Answer:
        headers = {"authorization": f"Bearer {self.token}"}
        response = self.client.generic(method, f"/api/v1/{path}", headers=headers, **request)
        content = b"".join(response) if response.streaming else response.content
        return Answer(response.status_code, json.loads(content) if content else None)
