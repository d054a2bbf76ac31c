"""The people of these tests: a subscriber, a neighbour who sees nothing, a clerk."""

from datetime import UTC, datetime, timedelta

import pytest
from rest_framework.test import APIClient

from accounts import keys, lifecycle
from accounts.models import Account, ApiKey, Subscriber
from config import clock

NOON = datetime(2026, 10, 5, 4, 0, tzinfo=UTC)


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def account(db: None) -> Account:
    return lifecycle.open_account(kind="person", name="Wang", now=NOON)


@pytest.fixture
def subscriber(account: Account) -> Subscriber:
    return active_subscriber(account, "13900000001")


@pytest.fixture
def neighbour(account: Account) -> Subscriber:
    return active_subscriber(account, "13900000002")


def active_subscriber(account: Account, msisdn: str) -> Subscriber:
    created = lifecycle.create_subscriber(
        account_id=account.id, msisdn=msisdn, actor="clerk", reason="new", now=NOON
    )
    return lifecycle.activate(
        subscriber_id=created.id, actor="clerk", reason="new", now=NOON + timedelta(seconds=1)
    )


def client_of(token: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


@pytest.fixture
def clerk(db: None) -> APIClient:
    scopes = ("accounts:read", "accounts:write")
    _, token = keys.issue_key(kind=ApiKey.Kind.STAFF, scopes=scopes, now=clock.now())
    return client_of(token)


@pytest.fixture
def reader(db: None) -> APIClient:
    """Staff that may look and change nothing."""
    _, token = keys.issue_key(kind=ApiKey.Kind.STAFF, scopes=["accounts:read"], now=clock.now())
    return client_of(token)


@pytest.fixture
def phone(subscriber: Subscriber) -> APIClient:
    """The subscriber's own app."""
    _, token = keys.issue_key(
        kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.id, now=clock.now()
    )
    return client_of(token)
