"""Paying through Stripe, over HTTP against localstripe, with the webhooks that it signs itself."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db.models import QuerySet
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from config import clock
from invoicing import gateway, paying, settling
from invoicing.models import Invoice, Payment, WebhookEvent
from invoicing.refusals import GatewayAway, GatewayRefused, MethodNotOffered
from plans.models import Order
from usage.models import Bucket

from . import localstripe
from .localstripe import LocalStripe

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not localstripe.PROGRAM.exists(), reason="make test installs localstripe"),
]
SECRET = "whsec_for_tests"  # noqa: S105


@pytest.fixture(scope="session")
def stripe_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStripe]:
    with localstripe.running(tmp_path_factory.mktemp("localstripe") / "log") as provider:
        yield provider


@pytest.fixture
def provider(
    stripe_process: LocalStripe, live_server: LiveServer, settings: Settings
) -> LocalStripe:
    """localstripe, sending its webhooks to our live server."""
    settings.STRIPE_API_KEY = stripe_process.key
    settings.STRIPE_API_BASE = stripe_process.base
    settings.STRIPE_WEBHOOK_SECRET = SECRET
    stripe_process.send_webhooks_to(f"{live_server.url}/api/v1/webhooks/stripe", SECRET)
    return stripe_process


@pytest.fixture
def deaf_provider(provider: LocalStripe) -> LocalStripe:
    """localstripe whose webhooks do not reach us."""
    provider.send_webhooks_to("http://127.0.0.1:9/lost", SECRET)
    return provider


def start(
    thing: Invoice | Order, *, method: str = "card", card: str = "", key: str = "pay-1"
) -> Payment:
    payer = thing.account_id if isinstance(thing, Invoice) else thing.subscriber.account_id
    return paying.start_payment(
        account_id=payer,
        invoice_id=thing.pk if isinstance(thing, Invoice) else None,
        order_id=thing.pk if isinstance(thing, Order) else None,
        method=method,
        key=key,
        card=card,
        now=clock.now(),
    )


def messages_about(payment: Payment) -> QuerySet[WebhookEvent]:
    """What was stored about this payment; strays of other tests may come in too."""
    return WebhookEvent.objects.filter(body__data__object__id=payment.stripe_id)


def wait_for_webhook(payment: Payment) -> WebhookEvent:
    """The handled message about this payment."""
    ours = messages_about(payment).filter(handled_at__isnull=False)
    deadline = time.monotonic() + 20
    while (found := ours.first()) is None:
        assert time.monotonic() < deadline, "no webhook came in time"
        time.sleep(0.1)
    payment.refresh_from_db()
    return found


def signed(body: dict[str, Any], *, secret: str = SECRET, at: int | None = None) -> dict[str, Any]:
    payload = json.dumps(body).encode()
    stamp = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), b"%d.%s" % (stamp, payload), hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={stamp},v1={digest}", "Content-Type": "application/json"}
    return {"content": payload, "headers": headers}


def event(payment: Payment, status: str = "succeeded", **fields: Any) -> dict[str, Any]:
    kind = {"succeeded": "succeeded", "canceled": "canceled"}.get(status, "payment_failed")
    about = {
        "id": payment.stripe_id,
        "object": "payment_intent",
        "amount": payment.amount_fen,
        "amount_received": payment.amount_fen if status == "succeeded" else 0,
        "currency": "cny",
        "status": status,
        "metadata": {"payment_id": str(payment.pk)},
    }
    return {
        "id": f"evt_{status}_{len(fields)}",
        "type": f"payment_intent.{kind}",
        "data": {"object": {**about, **fields}},
    }


def test_a_pack_paid_in_the_card_form_is_granted_by_the_webhook(
    provider: LocalStripe, pack_order: Order
) -> None:
    payment = start(pack_order)
    assert payment.state == "pending"
    assert paying.next_step(payment_id=payment.pk).client_secret
    provider.pay(payment.stripe_id)
    assert wait_for_webhook(payment).outcome == "succeeded"
    assert (payment.state, payment.failure) == ("succeeded", "")
    assert Bucket.objects.get().remaining_mt == 250_000_000


def test_an_invoice_paid_with_a_card_that_asks_its_holder(
    provider: LocalStripe, invoice: Invoice
) -> None:
    payment = start(invoice, card=provider.card(localstripe.CARD_THAT_ASKS))
    assert payment.state == "pending"
    step = paying.next_step(payment_id=payment.pk)
    provider.say_yes(payment.stripe_id, step.client_secret)
    wait_for_webhook(payment)
    assert payment.state == "succeeded"


def test_a_card_that_pays_at_once_settles_at_once(
    deaf_provider: LocalStripe, pack_order: Order
) -> None:
    payment = start(pack_order, card=deaf_provider.card())
    assert payment.state == "succeeded"
    assert Bucket.objects.count() == 1
    assert start(pack_order, card="pm_ignored").pk == payment.pk


def test_a_declined_card_fails_with_the_providers_reason_and_another_may_be_tried(
    deaf_provider: LocalStripe, invoice: Invoice
) -> None:
    with pytest.raises(GatewayRefused):
        start(invoice, card=deaf_provider.card(localstripe.CARD_THAT_IS_DECLINED))
    failed = Payment.objects.get()
    assert failed.state == "failed"
    assert failed.failure
    assert start(invoice, card=deaf_provider.card(), key="pay-2").state == "succeeded"


def test_a_lost_webhook_is_made_good_by_polling(
    deaf_provider: LocalStripe, pack_order: Order
) -> None:
    payment = start(pack_order)
    deaf_provider.pay(payment.stripe_id)
    early = settling.poll_pending(now=clock.now(), older_than=timedelta(minutes=10))
    later = clock.now() + timedelta(minutes=11)
    asked = settling.poll_pending(now=later, older_than=timedelta(minutes=10))
    payment.refresh_from_db()
    assert (early, asked, payment.state) == (0, 1, "succeeded")
    assert Bucket.objects.count() == 1


def test_an_abandoned_payment_is_given_up_and_cannot_be_paid_any_more(
    deaf_provider: LocalStripe, pack_order: Order
) -> None:
    payment = start(pack_order)
    settling.poll_pending(now=clock.now() + timedelta(days=1), older_than=timedelta(minutes=10))
    payment.refresh_from_db()
    assert payment.state == "cancelled"
    with pytest.raises(httpx.HTTPStatusError):
        deaf_provider.pay(payment.stripe_id)


def test_a_new_start_settles_a_former_payment_that_was_paid_after_all(
    deaf_provider: LocalStripe, invoice: Invoice
) -> None:
    first = start(invoice)
    deaf_provider.pay(first.stripe_id)
    with pytest.raises(Exception, match="is paid"):
        start(invoice, key="pay-2")
    first.refresh_from_db()
    assert first.state == "succeeded"


def test_repeated_and_late_webhooks_change_nothing(
    deaf_provider: LocalStripe, live_server: LiveServer, pack_order: Order
) -> None:
    payment = start(pack_order)
    url = f"{live_server.url}/api/v1/webhooks/stripe"
    paid = signed(event(payment))
    failed = signed(event(payment, "requires_payment_method", last_payment_error={"message": "x"}))
    cancelled = signed(event(payment, "canceled"))
    for message in (failed, paid, paid, failed, cancelled):
        assert httpx.post(url, **message).status_code == 200
    payment.refresh_from_db()
    assert (payment.state, payment.failure) == ("succeeded", "")
    assert Bucket.objects.count() == 1
    assert messages_about(payment).count() == 3


def test_a_webhook_that_overtakes_our_note_of_the_intent_finds_its_payment(
    deaf_provider: LocalStripe, live_server: LiveServer, pack_order: Order
) -> None:
    payment = start(pack_order)
    Payment.objects.filter(pk=payment.pk).update(stripe_id="")
    httpx.post(f"{live_server.url}/api/v1/webhooks/stripe", **signed(event(payment)))
    payment.refresh_from_db()
    assert payment.state == "succeeded"


def test_another_amount_is_recorded_and_grants_nothing(
    deaf_provider: LocalStripe, live_server: LiveServer, pack_order: Order
) -> None:
    payment = start(pack_order)
    less = signed(event(payment, amount_received=99))
    httpx.post(f"{live_server.url}/api/v1/webhooks/stripe", **less)
    payment.refresh_from_db()
    assert payment.state == "failed"
    assert payment.failure == "amount mismatch: 99 fen came instead of 100"
    assert not Bucket.objects.exists()


@pytest.mark.parametrize("wrong", ["secret", "old", "body", "none"])
def test_an_unsigned_message_is_refused_and_leaves_nothing(
    deaf_provider: LocalStripe, live_server: LiveServer, pack_order: Order, wrong: str
) -> None:
    payment = start(pack_order)
    message = signed(
        event(payment),
        secret="guess" if wrong == "secret" else SECRET,
        at=int(time.time()) - 3600 if wrong == "old" else None,
    )
    if wrong == "body":
        message["content"] = message["content"].replace(b"100", b"101")
    if wrong == "none":
        del message["headers"]["Stripe-Signature"]
    answer = httpx.post(f"{live_server.url}/api/v1/webhooks/stripe", **message)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")
    assert not messages_about(payment).exists()


def test_a_provider_that_is_away_leaves_a_payment_that_goes_on_with_the_same_key(
    deaf_provider: LocalStripe, pack_order: Order, settings: Settings
) -> None:
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    with pytest.raises(GatewayAway):
        start(pack_order)
    assert Payment.objects.get().state == "pending"
    settings.STRIPE_API_BASE = deaf_provider.base
    assert start(pack_order, card=deaf_provider.card()).state == "succeeded"
    assert Payment.objects.count() == 1


@pytest.mark.parametrize("method", ["alipay", "wechat_pay"])
def test_wallets_ask_for_an_intent_in_yuan_of_their_own_method(
    deaf_provider: LocalStripe, method: str
) -> None:
    intent = gateway.create_intent(
        payment_id=7, amount_fen=990, method=method, description="x", idempotency_key="k"
    )
    assert (intent.amount_fen, intent.currency, intent.payment_id) == (990, "cny", 7)


def test_all_ways_are_offered_with_a_key_and_others_refused(
    deaf_provider: LocalStripe, invoice: Invoice
) -> None:
    assert paying.offered_methods() == ["card", "alipay", "wechat_pay", "offline"]
    with pytest.raises(MethodNotOffered):
        start(invoice, method="cheque")


def test_no_network_call_is_made_inside_a_transaction() -> None:
    """The gateway is only imported by modules that call it outside of transactions."""
    users = {
        path.name
        for path in Path(gateway.__file__).parent.rglob("*.py")
        if "gateway." in path.read_text()
    }
    assert users <= {"paying.py", "settling.py", "webhooks.py", "tasks.py"}
