"""People, and the invitations by which they come in."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone


class Role(models.TextChoices):
    """A role is a group of the same name; a person has one or more."""

    ANNOTATOR = "annotator", "Annotator"
    MODERATOR = "moderator", "Moderator"
    ADMIN = "admin", "Admin"


class Person(AbstractUser):
    def roles(self) -> frozenset[str]:
        """The names of the person's roles; one SQL query for each instance, then remembered."""
        if not hasattr(self, "_roles"):
            self._roles = frozenset(self.groups.values_list("name", flat=True)) & frozenset(Role.values)
        return self._roles


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Invitation(models.Model):
    """A one-time door. The token itself is shown once, to the admin who made it, and never stored."""

    LIFETIME = timedelta(days=7)

    token_hash = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=16, choices=Role.choices)
    note = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="invitations")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_by = models.OneToOneField(Person, null=True, on_delete=models.PROTECT, related_name="invitation")
    accepted_at = models.DateTimeField(null=True)

    @classmethod
    def issue(cls, *, role: str, by: Person, note: str = "") -> tuple[Invitation, str]:
        """A fresh invitation and its token, which cannot be read again later."""
        token = secrets.token_urlsafe(24)
        expires_at = timezone.now() + cls.LIFETIME
        invitation = cls.objects.create(
            token_hash=hash_token(token), role=role, created_by=by, note=note, expires_at=expires_at
        )
        return invitation, token

    @property
    def is_open(self) -> bool:
        return self.accepted_at is None and self.expires_at > timezone.now()


class ApiKey(models.Model):
    """A program's key to the API, acting as the person who made it. Only its hash is stored."""

    token_hash = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=80)
    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="api_keys")
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    @classmethod
    def issue(cls, *, person: Person, name: str) -> tuple[ApiKey, str]:
        """A fresh key and its token, which cannot be read again later."""
        token = "heed_" + secrets.token_urlsafe(32)
        return cls.objects.create(token_hash=hash_token(token), name=name, person=person), token
