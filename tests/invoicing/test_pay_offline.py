"""Offline payments: asked for by the payer, settled once by staff, never more than is due."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from django.db import connection

from invoicing import paying, reports
from invoicing.models import Invoice, Payment
from invoicing.refusals import (
    KeyMissing,
    KeyReused,
    MethodNotOffered,
    NothingDue,
    PaymentSettled,
    UnknownInvoice,
    UnknownOrder,
)
from plans import ordering
from plans.models import Charge, Order
from usage.models import Bucket, Callback, QuotaSession

from .conftest import Debtors

pytestmark = pytest.mark.django_db


def offline(invoice: Invoice, now: datetime, key: str = "pay-1") -> Payment:
    return paying.start_payment(
        account_id=invoice.account_id, invoice_id=invoice.pk, method="offline", key=key, now=now
    )


def test_only_the_offline_way_is_offered_without_a_stripe_key(
    invoice: Invoice, after_october: datetime
) -> None:
    assert paying.offered_methods() == ["offline"]
    with pytest.raises(MethodNotOffered):
        paying.start_payment(
            account_id=invoice.account_id,
            invoice_id=invoice.pk,
            method="card",
            key="pay-1",
            now=after_october,
        )


def test_a_confirmed_payment_pays_the_invoice_and_its_repeat_changes_nothing(
    invoice: Invoice, after_october: datetime
) -> None:
    payment = offline(invoice, after_october)
    assert (payment.amount_fen, payment.state) == (990, "pending")
    assert reports.paid_state(invoice=invoice) == reports.PaidState(0, 990, 990, "open")

    confirmed = paying.confirm_offline(payment_id=payment.pk, actor="li", now=after_october)
    again = paying.confirm_offline(
        payment_id=payment.pk, actor="wang", now=after_october + timedelta(days=1)
    )

    assert (confirmed.state, confirmed.confirmed_by) == ("succeeded", "li")
    assert (again.confirmed_by, again.settled_at) == ("li", after_october)
    assert reports.paid_state(invoice=invoice) == reports.PaidState(990, 0, 0, "paid")
    [view] = reports.invoices_of(account_id=invoice.account_id)
    assert (view.state, view.paid_fen, view.due_fen) == ("paid", 990, 0)
    with pytest.raises(NothingDue):
        offline(invoice, after_october, key="pay-2")
    with pytest.raises(PaymentSettled):
        paying.reject_offline(payment_id=payment.pk, actor="li", reason="no", now=after_october)


def test_a_rejected_payment_leaves_the_invoice_due_and_cannot_be_confirmed(
    invoice: Invoice, after_october: datetime
) -> None:
    payment = offline(invoice, after_october)
    rejected = paying.reject_offline(
        payment_id=payment.pk, actor="li", reason="not found at the bank", now=after_october
    )
    assert (rejected.state, rejected.failure) == ("failed", "not found at the bank")
    with pytest.raises(PaymentSettled):
        paying.confirm_offline(payment_id=payment.pk, actor="li", now=after_october)
    assert offline(invoice, after_october, key="pay-2").state == "pending"


def test_the_same_key_goes_on_with_its_payment_and_means_one_thing_only(
    invoice: Invoice, pack_order: Order, after_october: datetime
) -> None:
    assert offline(invoice, after_october).pk == offline(invoice, after_october).pk
    Order.objects.filter(pk=pack_order.pk).update(subscriber=invoice.account.subscribers.get())
    with pytest.raises(KeyReused):
        paying.start_payment(
            account_id=invoice.account_id,
            order_id=pack_order.pk,
            method="offline",
            key="pay-1",
            now=after_october,
        )
    with pytest.raises(KeyMissing):
        offline(invoice, after_october, key="")


def test_a_new_start_gives_the_unfinished_one_up(invoice: Invoice, after_october: datetime) -> None:
    first = offline(invoice, after_october)
    second = offline(invoice, after_october, key="pay-2")
    first.refresh_from_db()
    assert (first.state, second.state) == ("cancelled", "pending")
    with pytest.raises(PaymentSettled):
        paying.confirm_offline(payment_id=first.pk, actor="li", now=after_october)


def test_a_stranger_cannot_pay_or_probe(
    invoice: Invoice, pack_order: Order, debtors: Debtors, after_october: datetime
) -> None:
    stranger = debtors.account("王五").account_id
    with pytest.raises(UnknownInvoice):
        paying.start_payment(
            account_id=stranger,
            invoice_id=invoice.pk,
            method="offline",
            key="x",
            now=after_october,
        )
    with pytest.raises(UnknownOrder):
        paying.start_payment(
            account_id=stranger,
            order_id=pack_order.pk,
            method="offline",
            key="y",
            now=after_october,
        )


def pay_order(order: Order, now: datetime, key: str = "pay-1") -> Payment:
    return paying.start_payment(
        account_id=order.subscriber.account_id,
        order_id=order.pk,
        method="offline",
        key=key,
        now=now,
    )


def test_a_paid_pack_is_granted_and_charged_once(
    pack_order: Order, after_october: datetime
) -> None:
    payment = pay_order(pack_order, after_october)
    assert not Bucket.objects.exists()
    for _ in range(2):
        paying.confirm_offline(payment_id=payment.pk, actor="li", now=after_october)
    assert Bucket.objects.get().remaining_mt == 250_000_000
    assert Charge.objects.get().order_id == pack_order.pk
    with pytest.raises(NothingDue):
        pay_order(pack_order, after_october, key="pay-2")


def test_a_payment_tells_the_nodes_of_whoever_paid_to_ask_again(
    pack_order: Order, after_october: datetime
) -> None:
    owner = pack_order.subscriber
    QuotaSession.objects.create(
        ref="qs_1", node_id=1, session="s1", subject=owner.msisdn, subscriber_id=owner.pk,
        model="plain", state="idle", sequence=0, notify_url="https://node.example/told",
        created_at=after_october, supervised_until=after_october,
    )  # fmt: skip
    payment = pay_order(pack_order, after_october)
    assert not Callback.objects.exists()
    for _ in range(2):
        paying.confirm_offline(payment_id=payment.pk, actor="li", now=after_october)
    assert [one.kind for one in Callback.objects.all()] == ["REAUTHORIZE"]


def test_money_for_a_cancelled_order_is_kept_and_told(
    pack_order: Order, after_october: datetime
) -> None:
    payment = pay_order(pack_order, after_october)
    ordering.cancel(order_id=pack_order.pk)
    confirmed = paying.confirm_offline(payment_id=payment.pk, actor="li", now=after_october)
    assert confirmed.state == "succeeded"
    assert confirmed.failure.startswith("order not fulfilled")
    assert not Bucket.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_payments_started_at_once_one_is_under_way(
    invoice: Invoice, after_october: datetime
) -> None:
    def start(number: int) -> bool:
        try:
            return offline(invoice, after_october, key=f"pay-{number}").pk is not None
        except NothingDue:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(start, range(6)))
    assert Payment.objects.filter(state="pending").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_payment_confirmed_by_many_at_once_grants_once(
    pack_order: Order, after_october: datetime
) -> None:
    payment = pay_order(pack_order, after_october)

    def confirm(number: int) -> str:
        try:
            done = paying.confirm_offline(
                payment_id=payment.pk, actor=f"clerk-{number}", now=after_october
            )
            return done.confirmed_by
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(confirm, range(6)))) == 1
    assert Bucket.objects.count() == 1
