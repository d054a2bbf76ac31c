from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys, lifecycle
from accounts.models import ApiKey, Subscriber
from config import clock

from .conftest import client_of
from .test_api_staff import problem


@pytest.fixture
def browser(subscriber: Subscriber) -> APIClient:
    """The subscriber signed in to the portal; CSRF is checked as in a real browser."""
    client = APIClient(enforce_csrf_checks=True)
    assert subscriber.user is not None
    client.force_login(subscriber.user)
    return client


def test_me_is_the_subscriber_behind_the_key_or_the_session(
    phone: APIClient, browser: APIClient, subscriber: Subscriber
) -> None:
    for client in (phone, browser):
        me = client.get("/api/v1/me")
        assert me.status_code == 200, me.content
        assert me.json()["id"] == subscriber.id
        assert me.json()["msisdn"] == "+8613900000001"
        assert (me.json()["state"], me.json()["account_name"]) == ("active", "Wang")


def test_a_key_is_made_used_listed_and_revoked(phone: APIClient) -> None:
    made = phone.post("/api/v1/me/keys", {"name": "agent"})
    assert made.status_code == 201, made.content
    token = made.json()["key"]
    assert client_of(token).get("/api/v1/me").status_code == 200
    listed = phone.get("/api/v1/me/keys")
    assert [one["name"] for one in listed.json()["results"]] == ["agent", ""]
    assert token.partition(".")[2] not in listed.content.decode()
    assert phone.delete(f"/api/v1/me/keys/{made.json()['public_id']}").status_code == 204
    problem(client_of(token).get("/api/v1/me"), 401, "invalid_key")


def test_a_neighbours_key_is_neither_seen_nor_revoked(
    phone: APIClient, neighbour: Subscriber
) -> None:
    theirs, _ = keys.issue_key(
        kind="subscriber", subscriber_id=neighbour.id, name="theirs", now=clock.now()
    )
    assert "theirs" not in phone.get("/api/v1/me/keys").content.decode()
    assert phone.delete(f"/api/v1/me/keys/{theirs.public_id}").status_code == 404
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


def test_a_key_that_only_reads_makes_none_and_none_gives_more_than_it_has(
    subscriber: Subscriber,
) -> None:
    def client(*scopes: str) -> APIClient:
        _, token = keys.issue_key(
            kind="subscriber", subscriber_id=subscriber.id, scopes=scopes, now=clock.now()
        )
        return client_of(token)

    problem(client("me:read").post("/api/v1/me/keys", {}), 403, "wrong_scope")
    problem(client("me:write").get("/api/v1/me"), 403, "wrong_scope")
    problem(client("me:write").post("/api/v1/me/keys", {}), 403, "wrong_scope")
    narrow = client("me:write").post("/api/v1/me/keys", {"scopes": ["me:write"]})
    assert narrow.status_code == 201
    problem(client("me:write").post("/api/v1/me/keys", {"scopes": ["x"]}), 400, "invalid")


def test_a_session_without_the_csrf_token_changes_nothing(browser: APIClient) -> None:
    assert browser.post("/api/v1/me/keys", {}).status_code == 403
    assert not ApiKey.objects.exists()


def test_staff_nodes_and_strangers_are_no_subscribers(
    clerk: APIClient, django_user_model: Any
) -> None:
    assert clerk.get("/api/v1/me").status_code == 403
    _, token = keys.issue_key(kind="node", now=clock.now())
    assert client_of(token).get("/api/v1/me").status_code == 403
    assert APIClient().get("/api/v1/me").status_code == 401
    office = APIClient()
    office.force_login(django_user_model.objects.create(username="li", is_staff=True))
    assert office.get("/api/v1/me").status_code == 401


def test_a_terminated_subscriber_reads_on_and_changes_nothing(
    phone: APIClient, subscriber: Subscriber
) -> None:
    lifecycle.terminate(subscriber_id=subscriber.id, actor="c", reason="r", now=clock.now())
    assert phone.get("/api/v1/me").json()["state"] == "terminated"
    problem(phone.post("/api/v1/me/keys", {}), 403, "terminated")
