"""What becomes of a payment: succeeded, failed, cancelled; and what its success sets off.

Safe in any order and any number: outcomes are applied under the payment's lock and only move
forward. Money that arrives is never forgotten, even for a payment that was given up before.
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef

from config.errors import DomainError
from plans import ordering
from plans.models import Order
from plans.refusals import OrderRefused

from . import gateway
from .gateway import Intent
from .models import Payment
from .refusals import GatewayAway, GatewayRefused

# A payment that is under way or done: its thing needs no other one, and is not given up.
ALIVE = (Payment.State.PENDING, Payment.State.SUCCEEDED)
ABANDONED_AFTER = timedelta(hours=23)  # Stripe remembers our idempotency keys for 24 hours
logger = logging.getLogger(__name__)


@transaction.atomic
def settle(*, payment_id: int, paid_fen: int, now: datetime) -> Payment:
    """The money of a payment is here: mark it and fulfil its order; a repeat changes nothing.

    Another amount than asked for is recorded as a failure with both amounts, for staff to settle.
    """
    payment = Payment.objects.select_for_update(of=("self",)).get(id=payment_id)
    if payment.state == Payment.State.SUCCEEDED:
        return payment
    if paid_fen != payment.amount_fen:
        logger.error("payment %s: %s fen came for %s", payment_id, paid_fen, payment.amount_fen)
        payment.state = Payment.State.FAILED
        payment.failure = f"amount mismatch: {paid_fen} fen came instead of {payment.amount_fen}"
    else:
        if payment.state != Payment.State.PENDING:
            payment.failure = f"paid although it was {payment.state}: check for a double payment"
        else:
            payment.failure = ""
        payment.state = Payment.State.SUCCEEDED
    payment.settled_at = now
    payment.save(update_fields=["state", "failure", "settled_at"])
    if payment.state == Payment.State.SUCCEEDED and payment.order_id is not None:
        _fulfil(payment, now)
    return payment


def fail(*, payment_id: int, failure: str, now: datetime) -> bool:
    """A pending payment cannot succeed any more; False when it has another outcome already."""
    return _leave_pending(payment_id, Payment.State.FAILED, failure, now)


def apply_intent(*, intent: Intent, now: datetime) -> str:
    """Carry the provider's view of a payment into ours; returns the outcome in a few words."""
    payment = Payment.objects.filter(stripe_id=intent.id).first()
    if payment is None and intent.payment_id is not None:
        # Its message overtook our own note of the intent's id.
        unnamed = Payment.objects.filter(id=intent.payment_id, stripe_id="")
        payment = unnamed.first() if unnamed.update(stripe_id=intent.id) else None
        if payment is None:
            payment = Payment.objects.filter(stripe_id=intent.id).first()
    if payment is None:
        return "no payment of ours"
    if intent.status == "succeeded" and intent.currency == gateway.CURRENCY:
        settled = settle(payment_id=payment.pk, paid_fen=intent.amount_fen, now=now)
        return settled.failure or str(settled.state)
    if intent.status == "succeeded":
        return f"paid in {intent.currency}: payment {payment.pk} stays {payment.state}"
    if intent.status == "canceled":
        _leave_pending(payment.pk, Payment.State.CANCELLED, intent.failure, now)
    elif intent.failure:
        # The payer may still try again with the same intent, so it stays pending.
        pending = Payment.objects.filter(id=payment.pk, state=Payment.State.PENDING)
        pending.update(failure=intent.failure)
    return intent.status


def give_up(*, payment_id: int, now: datetime) -> None:
    """Cancel a pending payment, at the provider first; if it was paid after all, settle it.

    Speaks to the provider, so no transaction may be open. Raises GatewayAway.
    """
    payment = Payment.objects.get(id=payment_id)
    if payment.stripe_id:
        try:
            intent = gateway.cancel(intent_id=payment.stripe_id)
        except GatewayRefused:
            intent = gateway.retrieve(intent_id=payment.stripe_id)
        apply_intent(intent=intent, now=now)
        return
    # The guard on the id: once an intent is known, it must be cancelled at the provider.
    unnamed = Payment.objects.filter(id=payment_id, stripe_id="", state=Payment.State.PENDING)
    unnamed.update(state=Payment.State.CANCELLED, settled_at=now)


def poll_pending(*, now: datetime, older_than: timedelta, limit: int = 500) -> int:
    """Ask the provider about payments whose message may be lost; give up abandoned ones.

    Returns how many were asked about. Stops at the first sign that the provider is away.
    """
    waiting = Payment.objects.filter(
        state=Payment.State.PENDING, created_at__lte=now - older_than
    ).exclude(method=Payment.Method.OFFLINE)
    asked = 0
    for payment in waiting.order_by("id")[:limit]:
        try:
            if payment.created_at <= now - ABANDONED_AFTER:
                give_up(payment_id=payment.pk, now=now)
            elif payment.stripe_id:
                apply_intent(intent=gateway.retrieve(intent_id=payment.stripe_id), now=now)
        except GatewayRefused as refusal:
            logger.warning("payment %s: %s", payment.pk, refusal.detail)
        except GatewayAway:
            break
        asked += 1
    return asked


def fulfil_paid_orders(*, now: datetime, limit: int = 500) -> int:
    """Fulfil orders that are paid and still pending, if a first attempt failed; how many tried."""
    paid = Payment.objects.filter(
        state=Payment.State.SUCCEEDED, order__state=Order.State.PENDING
    ).order_by("id")[:limit]
    for payment in paid:
        _fulfil(payment, now)
    return len(paid)


def cancel_unpaid_orders(*, now: datetime, older_than: timedelta, limit: int = 500) -> int:
    """Cancel orders that wait for their payment for so long and have none under way, the oldest
    first and `limit` at most; returns how many. Each in a transaction of its own."""
    alive = Payment.objects.filter(order=OuterRef("pk"), state__in=ALIVE)
    stale = Order.objects.filter(
        ~Exists(alive), state=Order.State.PENDING, created_at__lte=now - older_than
    )
    ids = list(stale.order_by("created_at", "id").values_list("id", flat=True)[:limit])
    return sum(_cancel_unpaid(order_id) for order_id in ids)


def _cancel_unpaid(order_id: int) -> bool:
    """Cancel one order, unless it was paid or a payment of it began meanwhile."""
    try:
        with transaction.atomic():
            ordering.cancel(order_id=order_id)
            # It is locked now, and a payment begins under this lock: who is here came before.
            if Payment.objects.filter(order_id=order_id, state__in=ALIVE).exists():
                transaction.set_rollback(True)
                return False
    except OrderRefused:
        return False
    logger.info("order %s: cancelled, since nobody paid it", order_id)
    return True


def _fulfil(payment: Payment, now: datetime) -> None:
    """Fulfil the order; a refusal is kept beside the payment, which stays a success."""
    assert payment.order_id is not None
    try:
        with transaction.atomic():
            ordering.fulfil(order_id=payment.order_id, now=now)
    except DomainError as refusal:
        logger.error("payment %s: order not fulfilled: %s", payment.pk, refusal.detail)
        note = f"order not fulfilled: {refusal.detail}"[:300]
        Payment.objects.filter(id=payment.pk).update(failure=note)


def _leave_pending(payment_id: int, state: Payment.State, failure: str, now: datetime) -> bool:
    pending = Payment.objects.filter(id=payment_id, state=Payment.State.PENDING)
    return bool(pending.update(state=state, failure=failure[:300], settled_at=now))
