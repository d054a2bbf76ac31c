"""Orders: a pack bought on the bill or paid first; granted and charged exactly once."""

from datetime import datetime, timedelta

from django.db import transaction

from accounts.models import Subscriber
from usage import granting
from usage.ledger import Grant
from usage.models import Bucket
from usage.periods import cycle_of

from . import catalogue, charging, pooling
from .models import Charge, Order, Plan
from .months import locked_subscriber
from .refusals import (
    KeyMissing,
    KeyReused,
    OrderRefused,
    SubscriberNotActive,
    UnknownOrder,
    WrongKindOfPlan,
)

LONGEST_KEY = 120


@transaction.atomic
def place_order(
    *, subscriber_id: int, plan_code: str, pay: str, key: str, now: datetime
) -> tuple[Order, bool]:
    """Order a pack; a repeat of `key` returns the first order and False.

    `pay` is "bill" (granted at once, charged on this cycle's invoice) or "now" (pending until the
    payment calls `fulfil`). Raises KeyMissing, KeyReused, UnknownPlan, WrongKindOfPlan,
    SubscriberNotActive, NoPool and PoolRefused.
    """
    if not 0 < len(key) <= LONGEST_KEY:
        raise KeyMissing(
            "Send the header Idempotency-Key with a value that names this purchase, "
            f"of at most {LONGEST_KEY} characters"
        )
    pay = Order.Pay(pay)
    subscriber = locked_subscriber(subscriber_id)
    former = (
        Order.objects.select_related("version__plan").filter(subscriber=subscriber, key=key).first()
    )
    if former is not None:
        if (former.version.plan.code, former.pay) != (plan_code, pay):
            raise KeyReused(f"{key} already names another purchase; use a new Idempotency-Key")
        return former, False
    if subscriber.state != Subscriber.State.ACTIVE:
        raise SubscriberNotActive(f"The subscriber is {subscriber.state}; resume it to buy packs")
    version = catalogue.version_on_sale(plan_code)
    if version.plan.kind != Plan.Kind.PACK:
        raise WrongKindOfPlan(f"{plan_code} is a monthly plan: subscribe to it")
    order = Order.objects.create(
        subscriber=subscriber,
        pool=pooling.pool_to_add_to(subscriber=subscriber, version=version, now=now),
        version=version,
        amount_fen=version.price_fen,
        pay=pay,
        key=key,
        created_at=now,
    )
    return (fulfil(order_id=order.pk, now=now) if pay == Order.Pay.BILL else order), True


@transaction.atomic
def fulfil(*, order_id: int, now: datetime) -> Order:
    """Grant the pack from `now` on for its days and book its charge; a repeat changes nothing.

    Done whatever became of the subscriber meanwhile, since the order may be paid for. Raises
    UnknownOrder, and OrderRefused when it was cancelled (a payment of it must go back).
    """
    order = _locked_order(order_id)
    if order.state == Order.State.CANCELLED:
        raise OrderRefused(f"Order {order_id} was cancelled; return its payment, or order again")
    if order.state == Order.State.FULFILLED:
        return order
    version = order.version
    until = now + timedelta(days=version.validity_days)
    granting.grant_many(grants=[_grant(order, now, until)], now=now)
    charging.book(
        account_id=order.subscriber.account_id,
        subscriber_id=order.subscriber_id,
        kind=Charge.Kind.PACK,
        name=version.name,
        name_en=version.name_en,
        amount_fen=order.amount_fen,
        tax_category=version.tax_category,
        cycle=cycle_of(now),
        period_start=now,
        period_end=until,
        key=f"pack:order:{order.pk}",
        now=now,
        version_id=version.pk,
        order_id=order.pk,
    )
    order.state, order.fulfilled_at = Order.State.FULFILLED, now
    order.save(update_fields=["state", "fulfilled_at"])
    return order


def _grant(order: Order, now: datetime, until: datetime) -> Grant:
    version = order.version
    return Grant(
        subscriber_id=order.subscriber_id if order.pool_id is None else None,
        pool_id=order.pool_id,
        kind=Bucket.Kind.PACK,
        name=version.name,
        name_en=version.name_en,
        amount_mt=version.tokens * 1000,
        valid_from=now,
        valid_until=until,
        key=f"order:{order.pk}",
        priority=version.priority,
        model_ids=tuple(catalogue.model_ids_of(version)),
        minute_from=version.minute_from,
        minute_until=version.minute_until,
    )


@transaction.atomic
def cancel(*, order_id: int) -> Order:
    """Give up an order that is not paid; a repeat changes nothing.

    Raises UnknownOrder, and OrderRefused when it is fulfilled: that is corrected by a credit.
    """
    order = _locked_order(order_id)
    if order.state == Order.State.FULFILLED:
        raise OrderRefused(f"Order {order_id} is fulfilled; credit its charge instead")
    order.state = Order.State.CANCELLED
    order.save(update_fields=["state"])
    return order


def _locked_order(order_id: int) -> Order:
    """The order, locked after its subscriber as everywhere."""
    subscriber_id = (
        Order.objects.values_list("subscriber_id", flat=True).filter(id=order_id).first()
    )
    if subscriber_id is None:
        raise UnknownOrder(f"There is no order {order_id}")
    locked_subscriber(subscriber_id)
    rows = Order.objects.select_for_update(of=("self",)).select_related("version", "subscriber")
    return rows.get(id=order_id)
