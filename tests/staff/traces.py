"""What the carrier of these tests has sold and billed, and a row in every other table."""

from datetime import date, timedelta

from accounts import keys, outbox
from accounts.models import Account, ApiKey, Subscriber
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
from usage import corrections, ledger, movements, pools, rerating
from usage.models import (
    BlockChange,
    Callback,
    CycleOverage,
    DroppedDay,
    EventKey,
    Node,
    NodeCounter,
    Notice,
    Pool,
    UsageEvent,
)
from usage.normalising import Counts
from usage.periods import cycle_end, cycle_start

from .instants import NOON, OCTOBER, before


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


def share(payer: Subscriber, joins: Subscriber) -> Pool:
    """A family's pool with tokens, one member who may take 50 a month, and a movement of it."""
    pool = pools.create_pool(
        account_id=payer.account_id, name="一家人", kind="family", now=before()
    )
    bucket, _opened = pools.grant_to_pool(
        wanted=ledger.Grant(
            pool_id=pool.pk,
            kind="pack",
            name="家庭包",
            name_en="Family pack",
            amount_mt=900_000,
            valid_from=cycle_start(OCTOBER),
            valid_until=cycle_end(OCTOBER),
            key="pool:1",
        ),
        now=before(),
    )
    pools.join(
        pool_id=pool.pk,
        subscriber_id=joins.pk,
        cycle_cap_mt=50_000,
        actor="demo",
        now=before(),
    )
    movements.adjust(
        bucket_id=bucket.pk, amount_mt=100_000, key="m1", actor="demo", reason="gift", now=before()
    )
    return pool


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
    leave_traces_of_nodes()
    correct()
    assert EventKey.objects.exists()
    assert UsageEvent.objects.exists()


def leave_traces_of_nodes() -> None:
    """A node's counters, a callback to it, and a day that is past retention."""
    NodeCounter.objects.create(
        node_id=Node.objects.earliest("id").pk,
        at=before(),
        received_at=before(),
        **dict.fromkeys(
            ("input_total", "output_total", "requests_total")
            + ("input_tokens", "output_tokens", "requests"),
            1,
        ),
    )
    Callback.objects.create(
        key="block:1:1",
        node_id=Node.objects.earliest("id").pk,
        session_id=1,
        kind="ABORT",
        url="https://node.example/",
        body={"type": "ABORT"},
        next_attempt_at=before(),
        created_at=before(),
    )
    DroppedDay.objects.create(
        day=date(2025, 1, 1), events=0, mt=0, debited_mt=0, dropped_at=before()
    )


def correct() -> None:
    """An amendment, and a rerating that moves nothing yet."""
    corrections.amend(
        event_id=UsageEvent.objects.order_by("id")[0].pk,
        counts=Counts(200, 0, 0, 0),
        actor="demo",
        reason="recount",
        key="amend-1",
        now=NOON,
    )
    rerating.dry_run(
        model_code="telechat",
        start=cycle_start(OCTOBER),
        end=cycle_end(OCTOBER),
        actor="demo",
        reason="a look",
        now=NOON,
    )
