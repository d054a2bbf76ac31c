"""Accounts with debts: a person with a plan, pay-as-you-go usage and packs, made row by row."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count

import pytest
from django.db import connection

from accounts import lifecycle
from accounts.models import Subscriber
from invoicing import billrun, taxes
from invoicing.models import Invoice
from plans import charging
from plans.models import Charge, Order, Plan, PlanVersion
from usage import periods
from usage.models import InferenceModel, Overage

OCTOBER = date(2026, 10, 1)
NOVEMBER = date(2026, 11, 1)
DECEMBER = date(2026, 12, 1)


@dataclass
class Debtors:
    """Makes accounts and what they owe; every row it makes has its own key."""

    numbers: Iterator[int]

    def account(self, name: str = "张三") -> Subscriber:
        """An account with one active subscriber."""
        made = datetime(2026, 9, 1, tzinfo=UTC)
        account = lifecycle.open_account(kind="person", name=name, now=made)
        subscriber = lifecycle.create_subscriber(
            account_id=account.pk,
            msisdn=f"+86139{next(self.numbers):08d}",
            actor="clerk",
            reason="test",
            now=made,
        )
        return lifecycle.activate(
            subscriber_id=subscriber.pk, actor="clerk", reason="test", now=made
        )

    def charge(
        self,
        subscriber: Subscriber,
        amount_fen: int = 990,
        *,
        cycle: date = OCTOBER,
        kind: str = "fee",
        tax_category: str = "token_package",
        order_id: int | None = None,
    ) -> Charge:
        """A charge of the cycle (a credit when the amount is negative)."""
        charge, _ = charging.book(
            account_id=subscriber.account_id,
            subscriber_id=subscriber.pk,
            kind="credit" if amount_fen < 0 else kind,
            name="9.9元套餐",
            name_en="Plan 9.9",
            amount_fen=amount_fen,
            tax_category=tax_category,
            cycle=cycle,
            period_start=periods.cycle_start(cycle),
            period_end=periods.cycle_end(cycle),
            key=f"test:{next(self.numbers)}",
            now=periods.cycle_start(cycle),
            order_id=order_id,
        )
        return charge

    def overage(
        self,
        subscriber: Subscriber,
        mt: int,
        *,
        cycle: date = OCTOBER,
        model: InferenceModel,
        fen_per_million: int = 400,
    ) -> Overage:
        """Overage of the cycle, priced when it has a price."""
        number = next(self.numbers)
        return Overage.objects.create(
            event_id=number,
            batch_id=1,
            subscriber_id=subscriber.pk,
            account_id=subscriber.account_id,
            model_id=model.pk,
            cycle=cycle,
            occurred_at=periods.cycle_start(cycle),
            recorded_at=periods.cycle_start(cycle),
            mt=mt,
            priced=fen_per_million > 0,
            fen_per_million=fen_per_million,
        )


@pytest.fixture
def debtors() -> Debtors:
    return Debtors(count(1))


@pytest.fixture
def rates(db: None) -> None:
    """The shipped VAT rates."""
    taxes.load(now=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def model(db: None) -> InferenceModel:
    return InferenceModel.objects.create(code="deepseek-v3.2", name="DeepSeek-V3.2")


@pytest.fixture
def after_october() -> datetime:
    """02:00 in Shanghai on 1 November: the hour of the bill run."""
    return datetime(2026, 10, 31, 18, tzinfo=UTC)


@pytest.fixture
def invoice(rates: None, debtors: Debtors, after_october: datetime) -> Invoice:
    """A finalised invoice of 9.90 yuan."""
    debtors.charge(debtors.account())
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    return Invoice.objects.get()


@pytest.fixture
def pack_order(db: None, debtors: Debtors) -> Order:
    """A pack of 250,000 tokens for one yuan, bought to be paid at once."""
    plan = Plan.objects.create(code="pack-250k", kind=Plan.Kind.PACK)
    version = PlanVersion.objects.create(
        plan=plan,
        version=1,
        checksum="0" * 64,
        name="25万词元包",
        name_en="250k pack",
        audience="personal",
        price_fen=100,
        tokens=250_000,
        validity_days=31,
        priority=30,
        beyond="stop",
        tax_category="token_package",
        loaded_at=datetime(2026, 9, 1, tzinfo=UTC),
    )
    return Order.objects.create(
        subscriber=debtors.account("李四"),
        version=version,
        amount_fen=100,
        pay=Order.Pay.NOW,
        key="order-1",
        created_at=datetime(2026, 10, 20, tzinfo=UTC),
    )


def wait_for_one_who_waits() -> None:
    """Until another connection waits for one of our locks."""
    for _ in range(1000):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_sleep(0.01) FROM pg_locks"
                " WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            )
            if cursor.rowcount:
                return
    raise AssertionError("nobody came to wait")
