"""How people come in, what they may do, and the keys of their programs."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from feedback.errors import InvalidInput, InvitationClosed
from feedback.models import ApiKey, Invitation, Person, Role, hash_token
from feedback.services import audit


@transaction.atomic
def create_person(
    username: str, *, role: str, password: str | None = None, email: str = "", by: Person | None = None
) -> Person:
    """A person with one role. Without a password they cannot log in until one is set.

    Raises InvalidInput for an unknown role, a taken or odd name, or a weak password.
    """
    check_roles([role])
    person = Person(username=Person.normalize_username(username), email=email)
    try:
        if password is not None:
            validate_password(password, person)
        person.set_password(password)
        person.full_clean()
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from None
    person.save(force_insert=True)
    person.groups.set(_groups([role]))
    audit.record("create_person", person, by=by, data={"role": role})
    return person


def check_roles(roles: Collection[str]) -> None:
    for role in roles:
        if role not in Role.values:
            raise InvalidInput(f"there is no role {role!r}: choose of {', '.join(Role.values)}")


def _groups(roles: Collection[str]) -> list[Group]:
    return [Group.objects.get_or_create(name=role)[0] for role in roles]


@transaction.atomic
def invite(*, role: str, by: Person, note: str = "") -> tuple[Invitation, str]:
    """A one-time invitation and its token, which cannot be read again later."""
    check_roles([role])
    invitation, token = Invitation.issue(role=role, by=by, note=note[:200])
    audit.record("invite", invitation, by=by, data={"role": role})
    return invitation, token


def open_invitation(token: str) -> Invitation:
    """Raises InvitationClosed, in the same words whatever the cause: a guesser learns nothing."""
    invitation = Invitation.objects.filter(token_hash=hash_token(token)).first()
    if invitation is None or not invitation.is_open:
        raise InvitationClosed("this invitation is not open: ask for a new one")
    return invitation


@transaction.atomic
def accept_invitation(token: str, *, username: str, password: str) -> Person:
    """The new person. Of two who use one link at once, one comes in and the other finds it closed."""
    Invitation.objects.select_for_update().filter(token_hash=hash_token(token)).first()
    invitation = open_invitation(token)
    person = create_person(username, role=invitation.role, password=password, by=invitation.created_by)
    invitation.accepted_by = person
    invitation.accepted_at = timezone.now()
    invitation.save(update_fields=["accepted_by", "accepted_at"])
    audit.record("accept_invitation", invitation, by=person)
    return person


@transaction.atomic
def set_roles(person: Person, *, roles: Collection[str], by: Person) -> None:
    check_roles(roles)
    if person.pk == by.pk and Role.ADMIN not in roles:
        raise InvalidInput("you cannot take the admin role from yourself: another admin can")
    person.groups.set(_groups(roles))
    person.__dict__.pop("_roles", None)
    audit.record("set_roles", person, by=by, data={"roles": sorted(roles)})


@transaction.atomic
def set_active(person: Person, *, is_active: bool, by: Person) -> None:
    """Close or reopen an account; what the person did stays. Their API keys work only while it is open."""
    if person.pk == by.pk and not is_active:
        raise InvalidInput("you cannot close your own account: another admin can")
    person.is_active = is_active
    person.save(update_fields=["is_active"])
    audit.record("set_active", person, by=by, data={"is_active": is_active})


@transaction.atomic
def issue_api_key(person: Person, *, name: str) -> tuple[ApiKey, str]:
    """A key and its token, which cannot be read again later."""
    if not name.strip():
        raise InvalidInput("name: say what the key is for")
    key, token = ApiKey.issue(person=person, name=name.strip()[:80])
    audit.record("issue_api_key", key, by=person, data={"name": key.name})
    return key, token


@transaction.atomic
def revoke_api_key(key: ApiKey, *, by: Person) -> None:
    """Revoking twice is revoking once."""
    if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
        audit.record("revoke_api_key", key, by=by)
