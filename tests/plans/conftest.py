"""The people of these tests: a subscriber, a neighbour, and the shipped catalogue on sale."""

from datetime import datetime

import pytest
from django.db import connection

from accounts import lifecycle
from accounts.models import Account, Subscriber
from plans import catalogue
from usage.periods import BILLING_ZONE


def at(text: str) -> datetime:
    """An instant written in billing-zone time, as in `2026-11-24 10:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=BILLING_ZONE)


NOON = at("2026-11-24 12:00")


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def shipped(db: None) -> catalogue.LoadResult:
    return catalogue.load(now=at("2026-01-01 00:00"))


@pytest.fixture
def account(db: None) -> Account:
    return lifecycle.open_account(kind="person", name="Wang", now=at("2026-01-01 00:00"))


@pytest.fixture
def subscriber(account: Account) -> Subscriber:
    return make_subscriber(account, "+8613900000001")


@pytest.fixture
def neighbour(account: Account) -> Subscriber:
    return make_subscriber(account, "+8613900000002")


def make_subscriber(account: Account, msisdn: str) -> Subscriber:
    born = at("2026-01-01 00:00")
    created = lifecycle.create_subscriber(
        account_id=account.id, msisdn=msisdn, actor="clerk", reason="new", now=born
    )
    return lifecycle.activate(
        subscriber_id=created.id, actor="clerk", reason="new", now=at("2026-01-01 00:01")
    )


def close_connection() -> None:
    """Threads of a test give their own connection back."""
    connection.close()
