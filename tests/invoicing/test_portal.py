"""Money in the portal: packs, invoices and payments of one's own."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from django.test import Client

from accounts.models import Account, Subscriber
from invoicing import paying
from invoicing.models import Invoice, Payment
from plans import catalogue
from plans.models import Charge, Order
from tests.invoicing.conftest import Debtors
from usage.models import Bucket

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
Portal = Callable[[Subscriber], Client]


@pytest.fixture
def portal() -> Iterator[Portal]:
    def open_for(subscriber: Subscriber) -> Client:
        assert subscriber.user is not None
        client = Client(headers={"accept-language": "en"})
        client.force_login(subscriber.user)
        return client

    with time_machine.travel(NOW, tick=False):
        yield open_for


@pytest.fixture
def buyer(debtors: Debtors, db: None) -> Subscriber:
    catalogue.load(now=datetime(2026, 1, 1, tzinfo=UTC))
    return debtors.account("李四")


def holder(invoice: Invoice) -> Subscriber:
    return Subscriber.objects.get(account_id=invoice.account_id)


def key_in(page: str) -> str:
    return str(re.findall(r'name="key" value="([^"]+)"', page)[0])


def test_a_pack_on_the_bill_is_granted_once_however_often_the_form_is_sent(
    portal: Portal, buyer: Subscriber
) -> None:
    client = portal(buyer)
    key = key_in(client.get("/packs/pack-250k/").content.decode())
    for _ in range(2):
        answer = client.post("/packs/pack-250k/", {"pay": "bill", "key": key})
        assert answer["Location"] == "/"
    assert Bucket.objects.get(subscriber=buyer).remaining_mt == 250_000_000
    assert Charge.objects.get(subscriber=buyer).amount_fen == 100


def test_a_pack_paid_first_waits_for_the_payment(portal: Portal, buyer: Subscriber) -> None:
    client = portal(buyer)
    answer = client.post("/packs/pack-250k/", {"pay": "offline", "key": "k1"}, follow=True)
    payment = Payment.objects.get()
    assert f"name payment {payment.pk}" in answer.content.decode()
    assert not Bucket.objects.filter(subscriber=buyer).exists()
    paying.confirm_offline(payment_id=payment.pk, actor="clerk", now=NOW)
    assert Bucket.objects.get(subscriber=buyer).remaining_mt == 250_000_000
    assert "has arrived" in client.get(f"/payments/{payment.pk}/").content.decode()


def test_a_plan_is_no_pack(portal: Portal, buyer: Subscriber) -> None:
    assert portal(buyer).get("/packs/token-9.9/").status_code == 404
    assert not Order.objects.exists()


def test_an_invoice_shows_its_total_in_figures_and_capitals(
    portal: Portal, invoice: Invoice
) -> None:
    client = portal(holder(invoice))
    assert invoice.number in client.get("/invoices/").content.decode()
    page = client.get(f"/invoices/{invoice.number}/").content.decode()
    assert 'id="gross">¥9.90<' in page
    assert "玖元玖角整" in page


def test_the_neighbour_finds_neither_invoice_nor_payment(
    portal: Portal, invoice: Invoice, buyer: Subscriber
) -> None:
    portal(holder(invoice)).post(
        f"/invoices/{invoice.number}/pay/", {"method": "offline", "key": "k1"}
    )
    stranger = portal(buyer)
    assert stranger.get(f"/invoices/{invoice.number}/").status_code == 404
    assert stranger.post(f"/invoices/{invoice.number}/pay/").status_code == 404
    assert stranger.get(f"/payments/{Payment.objects.get().pk}/").status_code == 404
    assert invoice.number not in stranger.get("/invoices/").content.decode()


def test_a_company_keeps_its_invoices_from_its_members(portal: Portal, invoice: Invoice) -> None:
    Account.objects.filter(pk=invoice.account_id).update(kind=Account.Kind.ENTERPRISE)
    member = portal(holder(invoice))
    assert member.get(f"/invoices/{invoice.number}/").status_code == 404
    assert "Your company receives" in member.get("/invoices/").content.decode()


def test_an_invoice_is_paid_offline_and_then_asks_for_nothing(
    portal: Portal, invoice: Invoice
) -> None:
    client = portal(holder(invoice))
    address = f"/invoices/{invoice.number}/"
    client.post(f"{address}pay/", {"method": "offline", "key": "k1"})
    payment = Payment.objects.get()
    assert payment.amount_fen == 990
    assert "being confirmed" in client.get(address).content.decode()
    paying.confirm_offline(payment_id=payment.pk, actor="clerk", now=NOW)
    assert "Still to be paid" not in client.get(address).content.decode()


def test_a_way_to_pay_that_is_not_offered_is_refused_with_a_sentence(
    portal: Portal, invoice: Invoice
) -> None:
    client = portal(holder(invoice))
    answer = client.post(
        f"/invoices/{invoice.number}/pay/", {"method": "alipay", "key": "k1"}, follow=True
    )
    assert "not offered" in answer.content.decode()
    assert not Payment.objects.exists()


def test_the_home_page_reminds_of_what_is_due(portal: Portal, invoice: Invoice) -> None:
    page = portal(holder(invoice)).get("/").content.decode()
    assert "To be paid" in page
    assert f"/invoices/{invoice.number}/" in page
