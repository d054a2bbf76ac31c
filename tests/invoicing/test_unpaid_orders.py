"""Orders to be paid first that nobody pays: cancelled after a time, never while money may come."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction

from invoicing import paying, settling
from invoicing.models import Payment
from plans import ordering
from plans.models import Charge, Order
from usage.models import Bucket

from .conftest import wait_for_one_who_waits

pytestmark = pytest.mark.django_db
LONG = timedelta(hours=72)


def pay(order: Order, key: str = "pay-1") -> Payment:
    return paying.start_payment(
        account_id=order.subscriber.account_id,
        order_id=order.pk,
        method="offline",
        key=key,
        now=order.created_at,
    )


def cancel(order: Order, after: timedelta = LONG, limit: int = 500) -> int:
    try:
        now = order.created_at + after
        return settling.cancel_unpaid_orders(now=now, older_than=LONG, limit=limit)
    finally:
        if not connection.in_atomic_block:
            connection.close()


def state(order: Order) -> str:
    order.refresh_from_db()
    return order.state


def another(order: Order, number: int) -> Order:
    return Order.objects.create(
        subscriber=order.subscriber,
        version=order.version,
        amount_fen=100,
        pay=Order.Pay.NOW,
        key=f"another-{number}",
        created_at=order.created_at,
    )


def test_an_order_waits_for_its_payment_and_no_longer(pack_order: Order) -> None:
    assert cancel(pack_order, LONG - timedelta(microseconds=1)) == 0
    assert state(pack_order) == "pending"
    assert [cancel(pack_order) for _ in range(2)] == [1, 0]
    assert state(pack_order) == "cancelled"
    assert not Bucket.objects.exists()
    assert not Charge.objects.exists()


def test_an_order_with_a_payment_under_way_waits_for_its_outcome(pack_order: Order) -> None:
    payment = pay(pack_order)
    assert cancel(pack_order) == 0
    paying.reject_offline(
        payment_id=payment.pk, actor="li", reason="no money", now=pack_order.created_at
    )
    assert cancel(pack_order) == 1


def test_a_paid_order_is_left_to_be_fulfilled(pack_order: Order) -> None:
    Payment.objects.filter(pk=pay(pack_order).pk).update(state=Payment.State.SUCCEEDED)
    assert cancel(pack_order) == 0
    settling.fulfil_paid_orders(now=pack_order.created_at)
    assert state(pack_order) == "fulfilled"
    assert cancel(pack_order) == 0


def test_orders_are_cancelled_in_bounded_parts(pack_order: Order) -> None:
    for number in range(2):
        another(pack_order, number)
    assert [cancel(pack_order, limit=2) for _ in range(3)] == [2, 1, 0]


@pytest.mark.django_db(transaction=True)
def test_a_payment_that_begins_meanwhile_keeps_its_order(pack_order: Order) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            pay(pack_order)  # not committed: nobody else sees it yet
            cancelling = pool.submit(cancel, pack_order)
            wait_for_one_who_waits()
        assert cancelling.result() == 0
    assert state(pack_order) == "pending"


@pytest.mark.django_db(transaction=True)
def test_an_order_fulfilled_meanwhile_stays_fulfilled(pack_order: Order) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            ordering.fulfil(order_id=pack_order.pk, now=pack_order.created_at)
            cancelling = pool.submit(cancel, pack_order)
            wait_for_one_who_waits()
        assert cancelling.result() == 0
    assert state(pack_order) == "fulfilled"
