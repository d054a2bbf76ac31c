"""A small carrier with a row of everything, and one member of staff in each role."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.test import Client

from accounts import lifecycle
from accounts.models import Account, Subscriber, User
from accounts.roles import ensure_roles
from invoicing.models import Invoice, Payment
from usage import ingest, ledger, limits, nodes, profiles, quota, weights
from usage.models import Node, Pool, QuarantinedEvent, UsageLimit
from usage.periods import cycle_end, cycle_start

from .instants import NOON, OCTOBER, before
from .traces import leave_traces, sell_and_bill, share


@dataclass
class Carrier:
    """What the pages show: one subscriber who used more than the bucket held, and one who waits."""

    account: Account
    subscriber: Subscriber
    newcomer: Subscriber
    pool: Pool
    node: Node
    invoice: Invoice
    payment: Payment
    quarantined: QuarantinedEvent


@pytest.fixture
def noon() -> Any:
    """Stands still at NOON."""
    with time_machine.travel(NOON, tick=False):
        yield NOON


@pytest.fixture
def carrier(db: None, noon: datetime) -> Carrier:
    cache.clear()
    account = lifecycle.open_account(kind="person", name="王小明", now=NOON - timedelta(days=4))
    subscriber = living(account, "13900000001")
    lifecycle.activate(subscriber_id=subscriber.pk, actor="demo", reason="new", now=before())
    profiles.set_terms(
        subscriber_id=subscriber.pk,
        beyond="payg",
        payg_fen_per_million=400,
        payg_cap_mt=1_000_000,
        now=before(),
    )
    node = use_tokens(subscriber)
    invoice, payment = sell_and_bill(account, subscriber)
    leave_traces(subscriber)
    ask_for_quota(node, subscriber)
    subscriber.refresh_from_db()
    newcomer = living(account, "13900000002")
    return Carrier(
        account=account,
        subscriber=subscriber,
        newcomer=newcomer,
        pool=share(subscriber, newcomer),
        node=node,
        invoice=invoice,
        payment=payment,
        quarantined=QuarantinedEvent.objects.get(code="unknown_subscriber"),
    )


def living(account: Account, msisdn: str) -> Subscriber:
    return lifecycle.create_subscriber(
        account_id=account.pk,
        msisdn=msisdn,
        actor="demo",
        reason="new",
        now=NOON - timedelta(hours=2),
        number_from=cycle_start(OCTOBER),
    )


def event(number: int, subject: str = "+8613900000001", tokens: int = 300) -> bytes:
    """One event as a node reports it, at NOON less half an hour."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"req-{number}",
            "source": "wuxi-1",
            "type": "inference.completed",
            "subject": subject,
            "time": (NOON - timedelta(minutes=30)).isoformat(),
            "data": {
                "model": "telechat",
                "usage": {
                    "prompt_tokens": tokens,
                    "completion_tokens": 0,
                    "total_tokens": tokens,
                },
            },
        }
    ).encode()


def use_tokens(subscriber: Subscriber) -> Node:
    """Three events: two within the bucket and its end, one of somebody unknown."""
    weights.put_model(code="telechat", name="TeleChat", aliases=["TeleChat3"], now=before())
    weights.put_weight(
        model_code="telechat",
        input_milli=1000,
        cached_milli=1000,
        output_milli=1000,
        reasoning_milli=1000,
        valid_from=cycle_start(OCTOBER),
        now=before(),
    )
    node, _token = nodes.create_node(name="wuxi-1", cluster="wuxi", now=before())
    ledger.grant(
        subscriber_id=subscriber.pk,
        kind="plan",
        name="月包",
        name_en="Monthly",
        amount_mt=500_000,
        valid_from=cycle_start(OCTOBER),
        valid_until=cycle_end(OCTOBER),
        key="test:1",
        now=before(),
    )
    batch = [event(1), event(2), event(3, subject="+8613999999999")]
    ingest.ingest(node=node, events=batch, now=NOON)
    return node


def ask_for_quota(node: Node, subscriber: Subscriber) -> None:
    """A session that holds something, and a limit."""
    limits.set_limit(
        subscriber_id=subscriber.pk, window="day", unit=UsageLimit.Unit.MT, amount=10**9, now=NOON
    )
    quota.create(
        node=node,
        name="s1",
        subject=subscriber.msisdn,
        model="telechat",
        ask=quota.Ask(sequence=0, digest=b"1", requested=100),
        now=NOON,
    )


def member(role: str) -> Client:
    """A signed-in member of staff; "superuser" is no role but all rights."""
    ensure_roles()
    user = User.objects.create_user(
        username=role.replace(" ", "-"), password="x", is_staff=True, is_superuser=False
    )
    if role == "superuser":
        user.is_superuser = True
        user.save(update_fields=["is_superuser"])
    else:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def chief(db: None) -> Client:
    return member("superuser")


@pytest.fixture
def auditor(db: None) -> Client:
    return member("auditor")


@pytest.fixture
def support(db: None) -> Client:
    return member("support")


@pytest.fixture
def finance(db: None) -> Client:
    return member("finance")


@pytest.fixture
def cataloguer(db: None) -> Client:
    return member("catalogue manager")
