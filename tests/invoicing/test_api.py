"""Invoices, payments, bill runs and the proof over HTTP: who may see and do what."""

from collections.abc import Iterator
from datetime import datetime

import pytest
import time_machine
from django.conf import settings
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Subscriber
from config.celery import app
from invoicing import billrun, paying, tasks
from invoicing.models import Invoice, Payment, WebhookEvent
from plans.models import Order
from usage.models import Bucket

from .conftest import OCTOBER, Debtors

pytestmark = pytest.mark.django_db


def client_of(subscriber: Subscriber, now: datetime, *scopes: str) -> APIClient:
    _, token = keys.issue_key(
        kind="subscriber",
        subscriber_id=subscriber.pk,
        scopes=scopes or ("me:read", "me:write"),
        now=now,
    )
    return _with(token)


def staff(now: datetime, *scopes: str) -> APIClient:
    _, token = keys.issue_key(kind="staff", name="erp", scopes=scopes, now=now)
    return _with(token)


def _with(token: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


@pytest.fixture
def payer(invoice: Invoice) -> Subscriber:
    return invoice.account.subscribers.get()


@pytest.fixture
def worker_in_this_process() -> Iterator[None]:
    """The worker's part runs at once and here, so that its outcome can be seen."""
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def test_a_subscriber_sees_their_invoice_and_a_stranger_does_not(
    invoice: Invoice, payer: Subscriber, debtors: Debtors, after_october: datetime
) -> None:
    mine = client_of(payer, after_october)
    [listed] = mine.get("/api/v1/me/invoices").json()["results"]
    assert (listed["number"], listed["cycle"], listed["gross_fen"]) == (
        invoice.number,
        "2026-10",
        990,
    )
    assert (listed["payment_state"], listed["due_fen"]) == ("open", 990)
    detail = mine.get(f"/api/v1/me/invoices/{invoice.number}").json()
    assert [(line["net_fen"], line["vat_fen"]) for line in detail["lines"]] == [(934, 56)]

    stranger = client_of(debtors.account("王五"), after_october)
    assert stranger.get("/api/v1/me/invoices").json()["results"] == []
    for path in (invoice.number, f"{invoice.number}.pdf"):
        answer = stranger.get(f"/api/v1/me/invoices/{path}")
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert APIClient().get("/api/v1/me/invoices").status_code == 401


def test_a_member_of_an_enterprise_does_not_see_the_companys_invoice(
    invoice: Invoice, payer: Subscriber, after_october: datetime
) -> None:
    payer.account.kind = "enterprise"
    payer.account.save(update_fields=["kind"])
    mine = client_of(payer, after_october)
    assert mine.get("/api/v1/me/invoices").json()["results"] == []
    assert mine.get(f"/api/v1/me/invoices/{invoice.number}").status_code == 404
    answer = mine.post(
        "/api/v1/me/payments",
        {"invoice": invoice.number, "method": "offline"},
        HTTP_IDEMPOTENCY_KEY="k",
    )
    assert answer.status_code == 404


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/pdf"])
def test_the_invoice_is_a_pdf_whatever_is_asked_for(
    invoice: Invoice, payer: Subscriber, after_october: datetime, accept: str
) -> None:
    answer = client_of(payer, after_october).get(
        f"/api/v1/me/invoices/{invoice.number}.pdf", HTTP_ACCEPT=accept
    )
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/pdf")
    assert answer.content.startswith(b"%PDF-")


def test_a_payment_is_started_once_per_key_and_confirmed_by_finance(
    invoice: Invoice, payer: Subscriber, after_october: datetime
) -> None:
    mine = client_of(payer, after_october)
    asked = {"invoice": invoice.number, "method": "offline"}
    answers = [
        mine.post("/api/v1/me/payments", asked, HTTP_IDEMPOTENCY_KEY="pay-1") for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    payment = answers[0].json()
    assert answers[1].json() == payment
    assert (payment["invoice"], payment["amount_fen"], payment["state"]) == (
        invoice.number,
        990,
        "pending",
    )
    address = f"/api/v1/payments/{payment['id']}/confirm"
    assert mine.post(address).status_code == 403
    assert staff(after_october, "invoices:read").post(address).status_code == 403
    finance = staff(after_october, "invoices:read", "invoices:write")
    assert finance.post(address).json()["state"] == "succeeded"
    [listed] = mine.get("/api/v1/me/payments").json()["results"]
    assert listed["state"] == "succeeded"
    again = mine.post("/api/v1/me/payments", asked, HTTP_IDEMPOTENCY_KEY="pay-2")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_due")


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        ({"method": "offline"}, "k", 400),
        ({"method": "cash", "order": 1}, "k", 400),
        ({"method": "offline", "order": 999999}, "k", 404),
        ({"method": "offline", "invoice": "0" * 20}, "k", 404),
    ],
)
def test_a_payment_of_nothing_is_refused(
    payer: Subscriber, after_october: datetime, body: dict[str, object], key: str, status: int
) -> None:
    mine = client_of(payer, after_october)
    answer = mine.post("/api/v1/me/payments", body, HTTP_IDEMPOTENCY_KEY=key)
    assert answer.status_code == status
    assert not Payment.objects.exists()


def test_a_payment_needs_a_key_and_a_key_that_may_write(
    invoice: Invoice, payer: Subscriber, after_october: datetime
) -> None:
    asked = {"invoice": invoice.number, "method": "offline"}
    answer = client_of(payer, after_october).post("/api/v1/me/payments", asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_missing")
    reader = client_of(payer, after_october, "me:read")
    assert reader.post("/api/v1/me/payments", asked, HTTP_IDEMPOTENCY_KEY="k").status_code == 403


def test_the_neighbours_order_cannot_be_paid(
    pack_order: Order, payer: Subscriber, after_october: datetime
) -> None:
    answer = client_of(payer, after_october).post(
        "/api/v1/me/payments",
        {"order": pack_order.pk, "method": "offline"},
        HTTP_IDEMPOTENCY_KEY="k",
    )
    assert answer.status_code == 404


def test_staff_reads_invoices_by_cycle_and_account(
    invoice: Invoice, after_october: datetime
) -> None:
    reader = staff(after_october, "invoices:read")
    for query, found in [
        ("", 1),
        ("?cycle=2026-10", 1),
        ("?cycle=2026-09", 0),
        (f"?account={invoice.account_id}", 1),
        ("?account=999999", 0),
    ]:
        assert len(reader.get(f"/api/v1/invoices{query}").json()["results"]) == found
    assert reader.get("/api/v1/invoices?cycle=Oct").status_code == 400
    assert reader.get(f"/api/v1/invoices/{invoice.number}").json()["lines"]
    assert reader.get(f"/api/v1/invoices/{invoice.number}.pdf").content.startswith(b"%PDF-")
    assert staff(after_october, "accounts:read").get("/api/v1/invoices").status_code == 403


def test_a_list_of_invoices_costs_the_same_however_long(
    rates: None,
    debtors: Debtors,
    after_october: datetime,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for _ in range(12):
        debtors.charge(debtors.account())
    billrun.bill_cycle(cycle=OCTOBER, now=after_october)
    reader = staff(after_october, "invoices:read")
    with django_assert_max_num_queries(4):
        assert len(reader.get("/api/v1/invoices").json()["results"]) == 12


def test_a_running_month_is_refused_before_anything_is_queued(
    invoice: Invoice, after_october: datetime
) -> None:
    finance = staff(after_october, "invoices:read", "invoices:write")
    with time_machine.travel(after_october, tick=False):
        answer = finance.post("/api/v1/bill-runs", {"cycle": "2026-11"})
        assert (answer.status_code, answer.json()["code"]) == (409, "cycle_not_ended")
    [run] = finance.get("/api/v1/bill-runs").json()["results"]
    assert (run["cycle"], run["state"]) == ("2026-10", "done")


def test_the_proof_is_read_with_its_own_scope(invoice: Invoice, after_october: datetime) -> None:
    period = "?from=2026-10-01&to=2026-11-01"
    auditor = staff(after_october, "assurance:read")
    report = auditor.get(f"/api/v1/assurance{period}").json()
    assert (report["invoiced_fen"], report["differences"]) == (990, [])
    assert auditor.get("/api/v1/assurance?from=x").json()["code"] == "invalid_period"
    reader = staff(after_october, "invoices:read")
    assert reader.get(f"/api/v1/assurance{period}").status_code == 403


def test_without_a_webhook_secret_every_message_is_refused(db: None) -> None:
    assert settings.STRIPE_WEBHOOK_SECRET == ""
    answer = APIClient().post("/api/v1/webhooks/stripe", {"id": "evt_1", "type": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")
    assert paying.offered_methods() == ["offline"]


def test_a_bill_run_asked_for_over_the_api_bills_in_the_background(
    rates: None,
    debtors: Debtors,
    after_october: datetime,
    worker_in_this_process: None,
) -> None:
    debtors.charge(debtors.account())
    finance = staff(after_october, "invoices:write")
    with time_machine.travel(after_october, tick=False):
        answers = [finance.post("/api/v1/bill-runs", {"cycle": "2026-10"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert Invoice.objects.get().gross_fen == 990


def test_a_message_that_could_not_be_handled_at_once_is_found_and_handled_once(
    pack_order: Order, after_october: datetime, worker_in_this_process: None
) -> None:
    payment = Payment.objects.create(
        account_id=pack_order.subscriber.account_id,
        order=pack_order,
        method="card",
        amount_fen=100,
        stripe_id="pi_1",
        key="k",
        created_at=after_october,
    )
    intent = {"id": "pi_1", "status": "succeeded", "amount": 100, "currency": "cny"}
    for number, kind in enumerate(["payment_intent.succeeded", "customer.created"]):
        WebhookEvent.objects.create(
            provider_id=f"evt_{number}",
            kind=kind,
            body={"data": {"object": intent}},
            received_at=after_october,
        )
    for _ in range(2):
        tasks.settle_payments()
    payment.refresh_from_db()
    assert payment.state == "succeeded"
    assert Bucket.objects.count() == 1
    outcomes = WebhookEvent.objects.order_by("id").values_list("outcome", flat=True)
    assert list(outcomes) == ["succeeded", "ignored"]


def test_an_order_that_was_paid_but_not_fulfilled_is_found_and_fulfilled(
    pack_order: Order, after_october: datetime
) -> None:
    Payment.objects.create(
        account_id=pack_order.subscriber.account_id,
        order=pack_order,
        method="card",
        state="succeeded",
        amount_fen=100,
        key="k",
        created_at=after_october,
    )
    for _ in range(2):
        tasks.settle_payments()
    pack_order.refresh_from_db()
    assert pack_order.state == "fulfilled"
    assert Bucket.objects.count() == 1
