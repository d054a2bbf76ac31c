"""The portal's key page and the language switch."""

import re

import pytest
from django.test import Client

from accounts import keys
from accounts.models import ApiKey, Subscriber
from config import clock


@pytest.fixture
def portal(subscriber: Subscriber) -> Client:
    assert subscriber.user is not None
    client = Client()
    client.force_login(subscriber.user)
    return client


def test_a_new_key_is_shown_once_and_works(portal: Client, subscriber: Subscriber) -> None:
    page = portal.post("/keys/", {"name": "laptop"}).content.decode()
    token = re.findall(r'id="new-key">([^<]+)<', page)[0]
    assert keys.authenticate(token=token, now=clock.now()).subscriber_id == subscriber.pk
    again = portal.get("/keys/").content.decode()
    assert token not in again
    assert "laptop" in again


def test_revoking_a_key_refuses_it_and_a_foreign_one_is_not_found(
    portal: Client, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    now = clock.now()
    mine, _ = keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.pk, now=now)
    theirs, _ = keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=neighbour.pk, now=now)
    assert portal.post(f"/keys/{mine.public_id}/revoke/").status_code == 302
    assert portal.post(f"/keys/{theirs.public_id}/revoke/").status_code == 404
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert (mine.revoked_at is None, theirs.revoked_at is None) == (False, True)
    assert mine.public_id not in portal.get("/keys/").content.decode()


def test_a_stranger_is_sent_to_sign_in_and_staff_are_told_they_have_no_number(
    db: None, django_user_model: type, admin_client: Client
) -> None:
    answer = Client().get("/keys/")
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in/?next=/keys/")
    assert admin_client.get("/keys/").status_code == 403


def test_a_form_from_another_site_is_refused(subscriber: Subscriber) -> None:
    assert subscriber.user is not None
    client = Client(enforce_csrf_checks=True)
    client.force_login(subscriber.user)
    assert client.post("/keys/", {"name": "x"}).status_code == 403
    assert not subscriber.api_keys.exists()


def test_the_language_is_kept_with_the_number_and_in_a_cookie(
    portal: Client, subscriber: Subscriber
) -> None:
    answer = portal.post("/language/", {"language": "en", "next": "/keys/"})
    assert answer["Location"] == "/keys/"
    subscriber.refresh_from_db()
    assert subscriber.language == "en"
    assert "Keys in force" in portal.get("/keys/").content.decode()


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/x"])
def test_the_language_switch_leads_nowhere_else(portal: Client, elsewhere: str) -> None:
    answer = portal.post("/language/", {"language": "en", "next": elsewhere})
    assert answer["Location"] == "/"


def test_an_unknown_language_is_refused(portal: Client, subscriber: Subscriber) -> None:
    assert portal.post("/language/", {"language": "xx"}).status_code == 400
    subscriber.refresh_from_db()
    assert subscriber.language == "zh-hans"
