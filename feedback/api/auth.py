"""API keys: `Authorization: Bearer heed_…`, acting as the person who made the key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from feedback.models import ApiKey, Person, hash_token

LAST_USED_STEP = timedelta(minutes=1)
"""`last_used_at` is kept to the minute, so that a busy key does not write a row for every request."""


class ApiKeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Person, ApiKey] | None:
        scheme, _, token = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        key = find_key(token.decode("latin-1").strip())
        if key is None:
            raise AuthenticationFailed("this API key is unknown or revoked, or its owner's account is closed")
        return key.person, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def find_key(token: str) -> ApiKey | None:
    """A key that works now; its use is noted."""
    keys = ApiKey.objects.filter(token_hash=hash_token(token), revoked_at=None, person__is_active=True)
    key = keys.select_related("person").first()
    if key is not None:
        now = timezone.now()
        unused = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_STEP)
        ApiKey.objects.filter(unused, pk=key.pk).update(last_used_at=now)
    return key


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "heed_…"}
