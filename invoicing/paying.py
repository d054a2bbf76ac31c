"""Paying: for an issued invoice or a pack bought at once, by Stripe or offline.

A payment is recorded first, in one transaction; only then is the provider asked, outside of any.
What a crash leaves behind is a pending payment, which polling settles or gives up. Only one payment
of a thing is under way at a time, and it is for exactly what is due: nothing is paid twice.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from plans.models import Order

from . import gateway, reports, settling
from .models import Invoice, Payment
from .refusals import (
    GatewayRefused,
    KeyMissing,
    KeyReused,
    MethodNotOffered,
    NothingDue,
    PaymentSettled,
    UnknownInvoice,
    UnknownOrder,
    UnknownPayment,
)

LONGEST_KEY = 120
WALLETS = {Payment.Method.ALIPAY, Payment.Method.WECHAT}


@dataclass(frozen=True)
class NextStep:
    """How the payer goes on: a page to open, a code to scan, or a secret for a card form.

    All empty when there is nothing to do but wait (offline, or settled already).
    """

    redirect_url: str = ""
    qr_url: str = ""
    client_secret: str = ""


def offered_methods() -> list[str]:
    """The ways to pay that are set up here; without a Stripe key only the offline one."""
    online = [Payment.Method.CARD, Payment.Method.ALIPAY, Payment.Method.WECHAT]
    return [
        method.value
        for method in [*(online if gateway.is_configured() else []), Payment.Method.OFFLINE]
    ]


def start_payment(
    *,
    account_id: int,
    method: str,
    key: str,
    now: datetime,
    invoice_id: int | None = None,
    order_id: int | None = None,
    card: str = "",
) -> Payment:
    """Start paying what is due of one invoice or one order; a repeat of `key` goes on with it.

    An earlier unfinished payment of the same thing is given up first. `card` is a payment method
    of the provider (from its card form). Raises KeyMissing, KeyReused, MethodNotOffered,
    UnknownInvoice, UnknownOrder, NothingDue, GatewayRefused, GatewayAway (then repeat the call).
    """
    if not 0 < len(key) <= LONGEST_KEY:
        raise KeyMissing(
            "Send the header Idempotency-Key with a value that names this payment, "
            f"of at most {LONGEST_KEY} characters."
        )
    if method not in offered_methods():
        raise MethodNotOffered(f"Pay by one of: {', '.join(offered_methods())}.")
    assert (invoice_id is None) != (order_id is None)
    payment = Payment.objects.filter(account_id=account_id, key=key).first()
    if payment is None:
        target = Q(invoice=invoice_id) if order_id is None else Q(order=order_id)
        unfinished = Payment.objects.filter(
            target, account_id=account_id, state=Payment.State.PENDING
        )
        for former in unfinished.exclude(key=key):
            settling.give_up(payment_id=former.pk, now=now)
        payment = _record(account_id, method, key, now, invoice_id, order_id)
    if (payment.method, payment.invoice_id, payment.order_id) != (method, invoice_id, order_id):
        raise KeyReused(f"{key} already names another payment; use a new Idempotency-Key.")
    if payment.method != Payment.Method.OFFLINE and payment.state == Payment.State.PENDING:
        _ask_provider(payment, card, now)
        payment.refresh_from_db()
    return payment


def next_step(*, payment_id: int) -> NextStep:
    """What the payer of a pending payment does now; asks the provider."""
    payment = Payment.objects.get(id=payment_id)
    if payment.state != Payment.State.PENDING or not payment.stripe_id:
        return NextStep()
    intent = gateway.retrieve(intent_id=payment.stripe_id)
    return NextStep(intent.redirect_url, intent.qr_url, intent.client_secret)


@transaction.atomic
def confirm_offline(*, payment_id: int, actor: str, now: datetime) -> Payment:
    """Staff saw the money of an offline payment; a repeat changes nothing.

    Raises UnknownPayment, MethodNotOffered (paid online), PaymentSettled (failed or cancelled).
    """
    payment = _locked_offline(payment_id)
    if payment.state == Payment.State.SUCCEEDED:
        return payment
    _refuse_settled(payment)
    Payment.objects.filter(id=payment.pk).update(confirmed_by=actor)
    settling.settle(payment_id=payment.pk, paid_fen=payment.amount_fen, now=now)
    payment.refresh_from_db()
    return payment


@transaction.atomic
def reject_offline(*, payment_id: int, actor: str, reason: str, now: datetime) -> Payment:
    """Staff did not find the money; the payer may start again. Raises as confirm_offline does."""
    payment = _locked_offline(payment_id)
    if payment.state == Payment.State.FAILED:
        return payment
    _refuse_settled(payment)
    payment.state, payment.failure = Payment.State.FAILED, reason[:300]
    payment.confirmed_by, payment.settled_at = actor, now
    payment.save(update_fields=["state", "failure", "confirmed_by", "settled_at"])
    return payment


@transaction.atomic
def _record(
    account_id: int,
    method: str,
    key: str,
    now: datetime,
    invoice_id: int | None,
    order_id: int | None,
) -> Payment:
    # The locked invoice or order puts payments of one thing in line, so two cannot both be due.
    if invoice_id is not None:
        amount_fen = _invoice_due(account_id, invoice_id)
    else:
        assert order_id is not None
        amount_fen = _order_due(account_id, order_id)
    payment, _ = Payment.objects.get_or_create(
        account_id=account_id,
        key=key,
        defaults={
            "invoice_id": invoice_id,
            "order_id": order_id,
            "method": method,
            "amount_fen": amount_fen,
            "created_at": now,
        },
    )
    return payment


def _invoice_due(account_id: int, invoice_id: int) -> int:
    final = Invoice.objects.filter(account_id=account_id, state=Invoice.State.FINAL)
    invoice = final.select_for_update(no_key=True, of=("self",)).filter(id=invoice_id).first()
    if invoice is None:
        raise UnknownInvoice(f"There is no invoice {invoice_id} of this account.")
    state = reports.paid_state(invoice=invoice)
    if state.due_fen - state.pending_fen <= 0:
        raise NothingDue(f"Invoice {invoice.number} is paid or a payment of it is under way.")
    return state.due_fen - state.pending_fen


def _order_due(account_id: int, order_id: int) -> int:
    orders = Order.objects.filter(subscriber__account_id=account_id)
    order = orders.select_for_update(of=("self",)).filter(id=order_id).first()
    if order is None:
        raise UnknownOrder(f"There is no order {order_id} of this account.")
    payments = Payment.objects.filter(order=order)
    if order.state != Order.State.PENDING or payments.filter(state__in=settling.ALIVE).exists():
        raise NothingDue(f"Order {order_id} is {order.state} or a payment of it is under way.")
    return order.amount_fen


def _ask_provider(payment: Payment, card: str, now: datetime) -> None:
    """Create the intent, remember it, and confirm it where that needs no card form."""
    if not payment.stripe_id:
        intent = gateway.create_intent(
            payment_id=payment.pk,
            amount_fen=payment.amount_fen,
            method=payment.method,
            description=f"invoice {payment.invoice_id}"
            if payment.invoice_id
            else f"order {payment.order_id}",
            idempotency_key=f"payment:{payment.pk}",
            card=card,
        )
        pending = Payment.objects.filter(id=payment.pk, state=Payment.State.PENDING)
        if not pending.update(stripe_id=intent.id):
            gateway.cancel(intent_id=intent.id)
            raise PaymentSettled("This payment was given up meanwhile; start another.")
        payment.stripe_id = intent.id
        if payment.method in WALLETS or card:
            _confirm(payment, now)


def _confirm(payment: Payment, now: datetime) -> None:
    try:
        intent = gateway.confirm(
            intent_id=payment.stripe_id,
            wallet=payment.method if payment.method in WALLETS else "",
            return_url=f"{settings.PUBLIC_URL}/payments/{payment.pk}/",
            idempotency_key=f"payment:{payment.pk}:confirm",
        )
    except GatewayRefused as refusal:
        settling.fail(payment_id=payment.pk, failure=refusal.detail, now=now)
        raise
    settling.apply_intent(intent=intent, now=now)


def _locked_offline(payment_id: int) -> Payment:
    payment = Payment.objects.select_for_update().filter(id=payment_id).first()
    if payment is None:
        raise UnknownPayment(f"There is no payment {payment_id}.")
    if payment.method != Payment.Method.OFFLINE:
        raise MethodNotOffered("Only an offline payment is settled by hand.")
    return payment


def _refuse_settled(payment: Payment) -> None:
    if payment.state != Payment.State.PENDING:
        raise PaymentSettled(f"The payment is {payment.state}; let the payer start another.")
