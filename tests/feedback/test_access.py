"""Every route is declared, and every declared route is tried as an anonymous visitor, an outsider and each role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from feedback import access
from feedback.models import Person
from tests.cast import Cast, setup_api_key, setup_cast, setup_person

ARGUMENTS = {"pk": 0, "token": "no-such-token", "key": "no-such-key", "uidb36": "0"}
ARGUMENTS |= {"rule": "r", "name": "n", "kind": "bert"}
NAMES = {
    "ana": {"annotator"},
    "mo": {"moderator"},
    "ada": {"admin"},
    "otto": set[str](),
}


def walk(patterns: list[Any], namespace: str = "") -> Iterator[tuple[str, URLPattern]]:
    for item in patterns:
        if isinstance(item, URLResolver):
            inner = f"{namespace}{item.namespace}:" if item.namespace else namespace
            yield from walk(item.url_patterns, inner)
        else:
            yield f"{namespace}{item.name}", item


PATTERNS = dict(walk(get_resolver().url_patterns))
OURS = {name: pattern for name, pattern in PATTERNS.items() if name in access.ROUTES}


def address(name: str) -> str:
    wanted = PATTERNS[name].pattern.regex.groupindex
    return reverse(name, kwargs={argument: ARGUMENTS[argument] for argument in wanted})


def tries() -> Iterator[tuple[str, str, str]]:
    """Route, method, verb."""
    for name in OURS:
        declared = access.ROUTES[name]
        if isinstance(declared, str):
            yield name, "GET", declared
        else:
            for method, verb in declared.items():
                yield name, method, verb


GUARDED = [(name, method, verb) for name, method, verb in tries() if verb in access.PERMISSIONS]


def test_every_route_is_declared() -> None:
    undeclared = [name for name in PATTERNS if access.verb_for(name, "GET") is None]
    assert undeclared == []


def test_every_declared_route_exists() -> None:
    assert set(access.ROUTES) - set(PATTERNS) == set()


def test_the_verb_on_a_page_is_the_declared_one() -> None:
    on_views = {name: pattern.callback.verb for name, pattern in OURS.items() if hasattr(pattern.callback, "verb")}
    assert len(on_views) > 30
    assert on_views == {name: access.ROUTES[name] for name in on_views}


def test_every_verb_is_used_and_every_used_verb_is_known() -> None:
    special = {access.ANONYMOUS, access.SIGNED_IN, access.SUPERUSER}
    assert {verb for _, _, verb in tries()} - special == set(access.PERMISSIONS)


def ask(client: Client, name: str, method: str) -> int:
    """The answer's status; 401 also for the way to the login page. A page that takes forms only is sent one."""
    answer = client.generic(method, address(name), b"{}", content_type="application/json")
    if answer.status_code == 405 and method == "GET":
        answer = client.post(address(name))
    if answer.status_code == 302 and answer["Location"].startswith("/accounts/login/"):
        return 401
    return answer.status_code


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "method", "verb"), GUARDED, ids=[f"{method} {name}" for name, method, _ in GUARDED])
class TestGuardedRoute:
    @pytest.fixture(autouse=True)
    def cast(self) -> Cast:
        return setup_cast()

    def test_denies_anonymous(self, client: Client, name: str, method: str, verb: str) -> None:
        assert ask(client, name, method) == 401

    def test_hides_from_an_outsider(self, client: Client, cast: Cast, name: str, method: str, verb: str) -> None:
        client.force_login(cast.otto)
        assert ask(client, name, method) == 404

    @pytest.mark.parametrize("who", ["ana", "mo", "ada"])
    def test_asks_for_the_role(self, client: Client, cast: Cast, name: str, method: str, verb: str, who: str) -> None:
        person: Person = getattr(cast, who)
        client.force_login(person)
        status = ask(client, name, method)
        assert (status == 403) != (not NAMES[who].isdisjoint(access.PERMISSIONS[verb])), status
        assert status < 500


@pytest.mark.django_db
class TestApiKey:
    @pytest.fixture
    def token(self) -> str:
        return setup_api_key(setup_cast().ana)

    def get(self, client: Client, authorization: str) -> int:
        return client.get("/api/v1/documents", headers={"authorization": authorization}).status_code

    def test_acts_as_the_person_who_made_it(self, client: Client, token: str) -> None:
        assert self.get(client, f"Bearer {token}") == 200
        runs = client.get("/api/v1/runs", headers={"authorization": f"Bearer {token}"})
        assert (runs.status_code, runs.json()["error"]) == (403, "forbidden")

    @pytest.mark.parametrize("wrong", ["heed_nonsense", "", "\xff"])
    def test_denies_an_unknown_key(self, client: Client, wrong: str) -> None:
        assert self.get(client, f"Bearer {wrong}") == 401

    def test_denies_a_revoked_key(self, client: Client, token: str) -> None:
        from feedback.models import ApiKey
        from feedback.services.people import revoke_api_key

        key = ApiKey.objects.get()
        revoke_api_key(key, by=key.person)
        assert self.get(client, f"Bearer {token}") == 401

    def test_denies_the_key_of_a_closed_account(self, client: Client, token: str) -> None:
        Person.objects.filter(username="ana").update(is_active=False)
        assert self.get(client, f"Bearer {token}") == 401


@pytest.mark.django_db
class TestAdmin:
    @pytest.fixture
    def operator(self) -> Person:
        person = setup_person("operator")
        person.is_superuser = True
        person.save(update_fields=["is_superuser"])
        return person

    def test_shows_a_superuser_every_list_and_lets_them_change_nothing(self, client: Client, operator: Person) -> None:
        client.force_login(operator)
        for model in ("person", "document", "annotation", "riskcase", "intakebatch", "auditevent", "apikey"):
            assert client.get(f"/admin/feedback/{model}/").status_code == 200
            assert client.get(f"/admin/feedback/{model}/add/").status_code == 403
        assert client.post(f"/admin/feedback/person/{operator.pk}/change/", {}).status_code == 403

    def test_denies_an_admin_who_is_no_superuser(self, client: Client) -> None:
        client.force_login(setup_cast().ada)
        assert client.get("/admin/", follow=True).status_code == 403

    def test_sends_anonymous_to_the_one_login_page(self, client: Client) -> None:
        response = client.get("/admin/", follow=True)
        assert response.redirect_chain[-1][0].startswith("/accounts/login/")
