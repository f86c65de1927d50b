from __future__ import annotations

import re

import pytest
from django.test import Client

from feedback.models import ApiKey, AuditEvent, Invitation, Person
from tests.cast import Cast

PASSWORD = "seven wild herons at noon"


@pytest.fixture
def link(ada: Client) -> str:
    html = ada.post("/people/", {"role": "moderator", "note": "Nia"}).content.decode()
    (found,) = re.findall(r'<code class="secret">http://testserver([^<]+)</code>', html)
    return str(found)


def test_link_is_shown_once(ada: Client, link: str) -> None:
    assert link not in ada.get("/people/").content.decode()
    assert "Nia" in ada.get("/people/").content.decode()


def test_invited_person_comes_in_with_the_role(client: Client, link: str) -> None:
    assert client.get(link).status_code == 200
    response = client.post(link, {"username": "nia", "password": PASSWORD, "password_again": PASSWORD})
    assert response["Location"] == "/"
    assert Person.objects.get(username="nia").roles() == {"moderator"}
    assert client.get("/cases/").status_code == 200


def test_link_works_once(client: Client, link: str) -> None:
    client.post(link, {"username": "nia", "password": PASSWORD, "password_again": PASSWORD})
    assert Client().get(link).status_code == 410
    assert Client().get("/invitations/guess/").status_code == 410


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"password_again": "another long password"}, "The two passwords differ"),
        ({"password": "short", "password_again": "short"}, "too short"),
        ({"username": "ana"}, "already exists"),
        ({"username": "a b"}, "valid username"),
    ],
)
def test_refused_account_says_why_and_leaves_the_link_open(
    client: Client, link: str, values: dict[str, str], reason: str
) -> None:
    given = {"username": "nia", "password": PASSWORD, "password_again": PASSWORD} | values
    response = client.post(link, given)
    assert response.status_code == 400
    assert reason in response.content.decode()
    assert PASSWORD not in response.content.decode()
    assert Invitation.objects.get().is_open


def test_close_and_open_an_account(ada: Client, cast: Cast) -> None:
    path = f"/people/{cast.bo.pk}/active/"
    ada.post(path, {"is_active": "0"})
    cast.bo.refresh_from_db()
    assert not cast.bo.is_active
    ada.post(path, {"is_active": "1"})
    cast.bo.refresh_from_db()
    assert cast.bo.is_active


def test_nobody_closes_their_own_account(ada: Client, cast: Cast) -> None:
    assert ada.post(f"/people/{cast.ada.pk}/active/", {"is_active": "0"}).status_code == 400
    cast.ada.refresh_from_db()
    assert cast.ada.is_active


def test_roles_are_set_and_recorded(ada: Client, cast: Cast) -> None:
    ada.post(f"/people/{cast.otto.pk}/roles/", {"roles": ["annotator", "moderator"]})
    assert Person.objects.get(pk=cast.otto.pk).roles() == {"annotator", "moderator"}
    assert AuditEvent.objects.filter(verb="set_roles").count() == 1


def test_api_key_is_shown_once_and_revoked(ana: Client) -> None:
    html = ana.post("/api-keys/", {"name": "nightly"}).content.decode()
    (token,) = re.findall(r"(heed_[\w-]+)", html)
    assert token not in ana.get("/api-keys/").content.decode()
    key = ApiKey.objects.get()
    ana.post(f"/api-keys/{key.pk}/revoke/")
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_nobody_revokes_the_key_of_another(ana: Client, mo: Client) -> None:
    ana.post("/api-keys/", {"name": "nightly"})
    assert mo.post(f"/api-keys/{ApiKey.objects.get().pk}/revoke/").status_code == 404


def test_login_page_opens_and_logs_in(client: Client, cast: Cast) -> None:
    cast.ana.set_password(PASSWORD)
    cast.ana.save(update_fields=["password"])
    assert b"Accounts are made by invitation" in client.get("/accounts/login/").content
    response = client.post("/accounts/login/", {"login": "ana", "password": PASSWORD})
    assert response["Location"] == "/"


def test_signup_is_closed(client: Client, db: None) -> None:
    assert b"Accounts are made by invitation" in client.get("/accounts/signup/").content
