from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from feedback.errors import InvalidInput, InvitationClosed
from feedback.models import ApiKey, Invitation, Person
from feedback.services.people import (
    accept_invitation,
    create_person,
    invite,
    issue_api_key,
    revoke_api_key,
    set_active,
    set_roles,
)
from tests.cast import Cast, setup_cast
from tests.feedback.threads import run_together

PASSWORD = "a long and odd passphrase"


@pytest.fixture
def cast(db: None) -> Cast:
    return setup_cast()


class TestCreating:
    def test_person_may_log_in_in_their_role(self, db: None) -> None:
        create_person("new", role="moderator", password=PASSWORD)
        person = authenticate(username="new", password=PASSWORD)
        assert isinstance(person, Person)
        assert person.roles() == {"moderator"}

    def test_without_a_password_nobody_logs_in(self, db: None) -> None:
        assert not create_person("new", role="annotator").has_usable_password()

    @pytest.mark.parametrize(
        ("username", "role", "password", "message"),
        [
            ("ana", "annotator", PASSWORD, "already exists"),
            ("new person", "annotator", PASSWORD, "valid username"),
            ("new", "king", PASSWORD, "no role 'king'"),
            ("new", "admin", "short", "too short"),
            ("new", "admin", "password1234", "too common"),
        ],
    )
    def test_rejects_what_does_not_fit(self, cast: Cast, username: str, role: str, password: str, message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            create_person(username, role=role, password=password)
        assert not Person.objects.filter(username__startswith="new").exists()

    def test_command_prints_a_password_that_works(self, db: None) -> None:
        out = StringIO()
        call_command("create_person", "new", role="admin", stdout=out)
        assert authenticate(username="new", password=out.getvalue().split()[-1]) is not None

    def test_command_refuses_a_taken_name(self, cast: Cast) -> None:
        with pytest.raises(CommandError, match="already exists"):
            call_command("create_person", "ana", role="admin")

    def test_sign_up_is_closed(self, db: None, client: Client) -> None:
        given = {"username": "new", "password1": PASSWORD, "password2": PASSWORD}
        client.post("/accounts/signup/", given)
        assert not Person.objects.exists()


class TestInviting:
    def test_invited_person_comes_in_once(self, cast: Cast) -> None:
        invitation, token = invite(role="annotator", by=cast.ada)
        person = accept_invitation(token, username="new", password=PASSWORD)
        invitation.refresh_from_db()
        assert (person.roles(), invitation.accepted_by) == (frozenset({"annotator"}), person)
        with pytest.raises(InvitationClosed):
            accept_invitation(token, username="newer", password=PASSWORD)

    def test_weak_password_leaves_the_invitation_open(self, cast: Cast) -> None:
        invitation, token = invite(role="annotator", by=cast.ada)
        with pytest.raises(InvalidInput):
            accept_invitation(token, username="new", password="short")
        invitation.refresh_from_db()
        assert invitation.is_open

    def test_run_out_and_unknown_invitations_are_closed(self, cast: Cast) -> None:
        _, token = invite(role="admin", by=cast.ada)
        Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        for wrong in (token, "unknown"):
            with pytest.raises(InvitationClosed):
                accept_invitation(wrong, username="new", password=PASSWORD)

    def test_token_is_not_stored(self, cast: Cast) -> None:
        invitation, token = invite(role="admin", by=cast.ada)
        assert token not in str(Invitation.objects.filter(pk=invitation.pk).values())

    @pytest.mark.django_db(transaction=True)
    def test_of_two_who_use_one_link_one_comes_in(self) -> None:
        _, token = invite(role="annotator", by=setup_cast().ada)
        results = run_together(
            *(lambda name=name: accept_invitation(token, username=name, password=PASSWORD) for name in ("one", "two"))
        )
        assert {type(result) for result in results} == {Person, InvitationClosed}


class TestManaging:
    def test_roles_can_be_changed(self, cast: Cast) -> None:
        set_roles(cast.bo, roles=["moderator", "annotator"], by=cast.ada)
        assert cast.bo.roles() == {"moderator", "annotator"}

    def test_nobody_locks_themselves_out(self, cast: Cast) -> None:
        with pytest.raises(InvalidInput):
            set_roles(cast.ada, roles=["annotator"], by=cast.ada)
        with pytest.raises(InvalidInput):
            set_active(cast.ada, is_active=False, by=cast.ada)

    def test_closed_account_cannot_log_in(self, cast: Cast, client: Client) -> None:
        client.force_login(cast.bo)
        set_active(cast.bo, is_active=False, by=cast.ada)
        assert client.get("/api/v1/schema").status_code == 401

    def test_api_key_is_shown_once_and_can_be_revoked(self, cast: Cast) -> None:
        key, token = issue_api_key(cast.ana, name=" a program ")
        assert token not in str(ApiKey.objects.filter(pk=key.pk).values())
        revoke_api_key(key, by=cast.ana)
        revoke_api_key(key, by=cast.ana)
        key.refresh_from_db()
        assert (key.name, key.revoked_at is not None) == ("a program", True)

    def test_api_key_needs_a_name(self, cast: Cast) -> None:
        with pytest.raises(InvalidInput, match="what the key is for"):
            issue_api_key(cast.ana, name=" ")
