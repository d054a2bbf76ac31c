"""A small carrier with a row of everything, and one member of staff in each role."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.test import Client

from accounts import keys, lifecycle, outbox
from accounts.models import Account, ApiKey, Subscriber, User
from accounts.roles import ensure_roles
from invoicing.models import (
    AssuranceResult,
    BillRun,
    Invoice,
    InvoiceLine,
    InvoiceSeries,
    Payment,
    TaxRate,
    WebhookEvent,
)
from plans import charging
from plans.models import Charge, Order, Plan, PlanVersion, Subscription
from usage import ingest, ledger, nodes, profiles, weights
from usage.models import (
    BlockChange,
    CycleOverage,
    DroppedDay,
    EventKey,
    Node,
    Notice,
    QuarantinedEvent,
    UsageEvent,
)
from usage.periods import cycle_end, cycle_start

NOON = datetime(2026, 10, 5, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
OCTOBER = date(2026, 10, 1)


@dataclass
class Carrier:
    """What the pages show: one subscriber who used more than the bucket held, and one who waits."""

    account: Account
    subscriber: Subscriber
    newcomer: Subscriber
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
    subscriber.refresh_from_db()
    return Carrier(
        account=account,
        subscriber=subscriber,
        newcomer=living(account, "13900000002"),
        node=node,
        invoice=invoice,
        payment=payment,
        quarantined=QuarantinedEvent.objects.get(code="unknown_subscriber"),
    )


def before() -> datetime:
    """An hour before now, so that all of it lies in the past."""
    return NOON - timedelta(hours=1)


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


def sell_and_bill(account: Account, subscriber: Subscriber) -> tuple[Invoice, Payment]:
    """A plan, a pack bought, their charges, an invoice over one of them and its payment."""
    plan = Plan.objects.create(code="token-9.9", kind="monthly")
    version = PlanVersion.objects.create(
        plan=plan,
        version=1,
        checksum="0" * 64,
        name="9.9 元套餐",
        name_en="9.9 yuan",
        audience="personal",
        price_fen=990,
        tokens=10_000_000,
        priority=20,
        beyond="stop",
        tax_category="token_package",
        loaded_at=before(),
    )
    Subscription.objects.create(
        subscriber=subscriber,
        version=version,
        price_fen=990,
        tokens=10_000_000,
        starts_at=cycle_start(OCTOBER),
        renews_at=cycle_end(OCTOBER),
        created_at=before(),
    )
    Order.objects.create(
        subscriber=subscriber,
        version=version,
        amount_fen=100,
        pay="bill",
        key="order-1",
        created_at=before(),
    )
    charge, _made = charging.book(
        account_id=account.pk,
        subscriber_id=subscriber.pk,
        kind=Charge.Kind.FEE,
        name="月费",
        name_en="Monthly fee",
        amount_fen=990,
        tax_category="token_package",
        cycle=OCTOBER,
        period_start=cycle_start(OCTOBER),
        period_end=cycle_end(OCTOBER),
        key="fee:1",
        now=before(),
        version_id=version.pk,
    )
    return bill(account, charge)


def bill(account: Account, charge: Charge) -> tuple[Invoice, Payment]:
    money = {"net_fen": 934, "vat_fen": 56, "gross_fen": 990}
    invoice = Invoice.objects.create(
        account=account,
        cycle=OCTOBER,
        number="26310000000000000001",
        buyer_name=account.name,
        seller_name="Carrier",
        issued_at=before(),
        due_at=before() + timedelta(days=15),
        **money,
    )
    InvoiceLine.objects.create(
        invoice=invoice,
        position=1,
        kind="fee",
        charge=charge,
        name=charge.name,
        name_en=charge.name_en,
        usage_cycle=OCTOBER,
        tax_category="token_package",
        rate_bp=600,
        **money,
    )
    Invoice.objects.filter(pk=invoice.pk).update(state=Invoice.State.FINAL)
    payment = Payment.objects.create(
        account=account,
        invoice=invoice,
        method=Payment.Method.OFFLINE,
        amount_fen=990,
        key="pay-1",
        created_at=before(),
    )
    return invoice, payment


def leave_traces(subscriber: Subscriber) -> None:
    """A row in every other table that has a page."""
    BillRun.objects.create(cycle=date(2026, 9, 1), state="done", started_at=before())
    InvoiceSeries.objects.create(year=26, region=31, channel=0, last_number=1)
    TaxRate.objects.get_or_create(
        category="token_package", valid_from=date(2026, 1, 1), defaults={"rate_bp": 600}
    )
    WebhookEvent.objects.create(
        provider_id="evt_1", kind="payment_intent.succeeded", body={"a": 1}, received_at=before()
    )
    AssuranceResult.objects.create(
        period_start=before() - timedelta(days=1),
        period_end=before(),
        proven=True,
        report={"received": 3},
        made_at=before(),
    )
    outbox.enqueue(
        key="notice-1",
        recipient=subscriber.msisdn,
        template="notice",
        body="50 %",
        now=before(),
        subscriber_id=subscriber.pk,
    )
    keys.issue_key(
        kind=ApiKey.Kind.SUBSCRIBER, now=before(), subscriber_id=subscriber.pk, name="app"
    )
    Notice.objects.get_or_create(
        subscriber_id=subscriber.pk, cycle=OCTOBER, percent=50, defaults={"at": before()}
    )
    BlockChange.objects.create(
        subscriber_id=subscriber.pk,
        msisdn=subscriber.msisdn,
        blocked=False,
        reason="",
        at=before(),
    )
    CycleOverage.objects.get_or_create(subscriber_id=subscriber.pk, cycle=OCTOBER)
    DroppedDay.objects.create(
        day=date(2025, 1, 1), events=0, mt=0, debited_mt=0, dropped_at=before()
    )
    assert EventKey.objects.exists()
    assert UsageEvent.objects.exists()


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
