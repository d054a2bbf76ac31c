"""Orders: a pack once per key, granted and charged once, valid 31 days."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from accounts import lifecycle
from accounts.models import Subscriber
from plans import ordering
from plans.models import Charge, Order
from plans.refusals import (
    KeyMissing,
    KeyReused,
    OrderRefused,
    SubscriberNotActive,
    UnknownOrder,
    UnknownPlan,
    WrongKindOfPlan,
)
from usage.models import Bucket
from usage.proof import verify

from .conftest import NOON, at, close_connection

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shipped")]


def place(
    subscriber: Subscriber, *, plan: str = "pack-400k", pay: str = "bill", key: str = "tap-1"
) -> tuple[Order, bool]:
    return ordering.place_order(
        subscriber_id=subscriber.pk, plan_code=plan, pay=pay, key=key, now=NOON
    )


def test_a_pack_on_the_bill_is_granted_at_once_for_31_days(subscriber: Subscriber) -> None:
    order, created = place(subscriber)
    assert created
    assert (order.state, order.fulfilled_at, order.amount_fen) == ("fulfilled", NOON, 100)
    bucket = Bucket.objects.get()
    assert (bucket.kind, bucket.priority, bucket.remaining_mt) == ("pack", 30, 400_000_000)
    assert (bucket.valid_from, bucket.valid_until) == (NOON, NOON + timedelta(days=31))
    charge = Charge.objects.get()
    assert (charge.kind, charge.amount_fen, charge.order_id) == ("pack", 100, order.pk)
    assert charge.cycle.isoformat() == "2026-11-01"
    assert verify() == []


def test_a_repeat_of_the_key_buys_nothing_more(subscriber: Subscriber) -> None:
    first, _ = place(subscriber)
    again, created = place(subscriber)
    assert (again.pk, created) == (first.pk, False)
    assert (Bucket.objects.count(), Charge.objects.count()) == (1, 1)
    assert place(subscriber, key="tap-2")[1]
    assert (Bucket.objects.count(), Charge.objects.count()) == (2, 2)


@pytest.mark.parametrize(("plan", "pay"), [("pack-250k", "bill"), ("pack-400k", "now")])
def test_a_key_reused_for_another_purchase_is_refused(
    subscriber: Subscriber, plan: str, pay: str
) -> None:
    place(subscriber)
    with pytest.raises(KeyReused):
        place(subscriber, plan=plan, pay=pay)


def test_two_subscribers_may_use_the_same_key(
    subscriber: Subscriber, neighbour: Subscriber
) -> None:
    assert place(subscriber)[0].pk != place(neighbour)[0].pk


def test_a_pack_paid_first_waits_for_its_payment(subscriber: Subscriber) -> None:
    order, _ = place(subscriber, pay="now")
    assert order.state == "pending"
    assert not Bucket.objects.exists()
    paid = NOON + timedelta(minutes=3)
    assert ordering.fulfil(order_id=order.pk, now=paid).state == "fulfilled"
    assert ordering.fulfil(order_id=order.pk, now=paid + timedelta(days=9)).fulfilled_at == paid
    assert Bucket.objects.get().valid_from == paid
    assert Charge.objects.count() == 1


def test_a_paid_order_is_fulfilled_whatever_became_of_the_subscriber(
    subscriber: Subscriber,
) -> None:
    order, _ = place(subscriber, pay="now")
    lifecycle.terminate(subscriber_id=subscriber.pk, actor="clerk", reason="left", now=NOON)
    assert ordering.fulfil(order_id=order.pk, now=NOON).state == "fulfilled"
    assert Charge.objects.count() == 1


def test_a_cancelled_order_is_not_fulfilled_and_a_fulfilled_one_not_cancelled(
    subscriber: Subscriber,
) -> None:
    pending, _ = place(subscriber, pay="now")
    assert [ordering.cancel(order_id=pending.pk).state for _ in range(2)] == ["cancelled"] * 2
    with pytest.raises(OrderRefused):
        ordering.fulfil(order_id=pending.pk, now=NOON)
    fulfilled, _ = place(subscriber, key="tap-2")
    with pytest.raises(OrderRefused):
        ordering.cancel(order_id=fulfilled.pk)
    with pytest.raises(UnknownOrder):
        ordering.fulfil(order_id=0, now=NOON)


@pytest.mark.parametrize(
    ("plan", "key", "refusal"),
    [
        ("token-9.9", "tap-1", WrongKindOfPlan),
        ("nothing", "tap-1", UnknownPlan),
        ("pack-250k", "", KeyMissing),
        ("pack-250k", "x" * 121, KeyMissing),
    ],
)
def test_what_cannot_be_ordered_is_refused(
    subscriber: Subscriber, plan: str, key: str, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        place(subscriber, plan=plan, key=key)
    assert not Order.objects.exists()


def test_only_an_active_subscriber_can_order(subscriber: Subscriber) -> None:
    lifecycle.suspend(subscriber_id=subscriber.pk, actor="clerk", reason="lost", now=NOON)
    with pytest.raises(SubscriberNotActive):
        place(subscriber)


@pytest.mark.parametrize(
    ("instant", "cycle"), [("2026-11-30 23:59:59", "2026-11"), ("2026-12-01 00:00", "2026-12")]
)
def test_bill_03_a_pack_is_charged_in_the_billing_zones_month(
    subscriber: Subscriber, instant: str, cycle: str
) -> None:
    order, _ = place(subscriber, pay="now")
    ordering.fulfil(order_id=order.pk, now=at(instant))
    assert f"{Charge.objects.get().cycle:%Y-%m}" == cycle


@pytest.mark.django_db(transaction=True)
def test_the_same_tap_eight_times_at_once_buys_one_pack(subscriber: Subscriber) -> None:
    def tap(_: int) -> bool:
        try:
            return place(subscriber)[1]
        finally:
            close_connection()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(tap, range(8))) == [False] * 7 + [True]
    assert (Bucket.objects.count(), Charge.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_a_payment_told_four_times_at_once_fulfils_once(subscriber: Subscriber) -> None:
    order, _ = place(subscriber, pay="now")

    def fulfil(_: int) -> str:
        try:
            return ordering.fulfil(order_id=order.pk, now=NOON).state
        finally:
            close_connection()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fulfil, range(4))) == {"fulfilled"}
    assert (Bucket.objects.count(), Charge.objects.count()) == (1, 1)
