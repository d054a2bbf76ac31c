"""The payment provider: the only module that speaks to Stripe. Never called inside a transaction.

Every call has a time limit and few retries; writing calls carry an idempotency key, so that a
repeat after a lost answer does nothing twice. What callers see are our own dataclass and errors.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import stripe
from django.conf import settings

from .refusals import GatewayAway, GatewayRefused, InvalidSignature

CURRENCY = "cny"
TIMEOUT_SECONDS = 10
RETRIES = 2
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intent:
    """A PaymentIntent as far as we use it.

    `status` is Stripe's word; `redirect_url` is where a wallet's user goes on, `qr_url` the image
    that WeChat scans, `failure` the provider's reason.
    """

    id: str
    status: str
    amount_fen: int
    currency: str
    client_secret: str
    payment_id: int | None
    redirect_url: str = ""
    qr_url: str = ""
    failure: str = ""


def is_configured() -> bool:
    """Whether payments by card, Alipay and WeChat Pay can be offered at all."""
    return bool(settings.STRIPE_API_KEY)


def create_intent(
    *,
    payment_id: int,
    amount_fen: int,
    method: str,
    description: str,
    idempotency_key: str,
    card: str = "",
) -> Intent:
    """Ask for a payment of `amount_fen`; a repeat with the key returns the same intent.

    `card` is the provider's id of a payment method, from its card form.
    """
    parameters: Any = {
        "amount": amount_fen,  # Stripe counts CNY in fen too
        "currency": CURRENCY,
        "payment_method_types": [method],
        "metadata": {"payment_id": str(payment_id), "about": description},
    }
    if card:
        parameters["payment_method"] = card
    if method == "wechat_pay":
        parameters["payment_method_options"] = {"wechat_pay": {"client": "web"}}
    with _translated():
        return _intent(
            _client().v1.payment_intents.create(parameters, {"idempotency_key": idempotency_key})
        )


def confirm(*, intent_id: str, wallet: str, return_url: str, idempotency_key: str) -> Intent:
    """Start the payment: by sending the user to the `wallet`, or with the intent's card if ""."""
    parameters: Any = {}
    if wallet:
        parameters = {"payment_method_data": {"type": wallet}, "return_url": return_url}
    with _translated():
        return _intent(
            _client().v1.payment_intents.confirm(
                intent_id, parameters, {"idempotency_key": idempotency_key}
            )
        )


def retrieve(*, intent_id: str) -> Intent:
    """The intent as it stands now."""
    with _translated():
        return _intent(_client().v1.payment_intents.retrieve(intent_id))


def cancel(*, intent_id: str) -> Intent:
    """Give the intent up, so that it cannot be paid any more; GatewayRefused if it was paid."""
    with _translated():
        return _intent(_client().v1.payment_intents.cancel(intent_id))


def verify(*, payload: bytes, signature: str) -> None:
    """InvalidSignature unless the provider signed this body within the last minutes."""
    try:
        stripe.WebhookSignature.verify_header(
            payload, signature, settings.STRIPE_WEBHOOK_SECRET, stripe.Webhook.DEFAULT_TOLERANCE
        )
    except (stripe.SignatureVerificationError, UnicodeDecodeError) as error:
        raise InvalidSignature("The Stripe-Signature does not fit this body.") from error


def intent_of_event(event_object: dict[str, Any]) -> Intent:
    """The intent inside a webhook's body."""
    return _read(event_object)


def _client() -> stripe.StripeClient:
    return _client_for(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


@lru_cache(maxsize=4)
def _client_for(api_key: str, api_base: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        api_key,
        base_addresses={"api": api_base} if api_base else None,
        http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
        max_network_retries=RETRIES,
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        raise GatewayRefused(error.user_message or "The payment was refused.") from error
    except stripe.StripeError as error:
        logger.warning("payment provider away: %s", type(error).__name__, exc_info=True)
        raise GatewayAway("The payment provider does not answer: try again.") from error


def _intent(intent: stripe.PaymentIntent) -> Intent:
    return _read(intent.to_dict())


def _read(intent: dict[str, Any]) -> Intent:
    action = intent.get("next_action") or {}
    qr_code = action.get("wechat_pay_display_qr_code") or {}
    redirect = action.get("redirect_to_url") or action.get("alipay_handle_redirect") or {}
    error = intent.get("last_payment_error") or {}
    ours = str((intent.get("metadata") or {}).get("payment_id", ""))
    received = intent.get("amount_received") or intent["amount"]
    return Intent(
        id=intent["id"],
        status=intent.get("status") or "",
        amount_fen=received if intent.get("status") == "succeeded" else intent["amount"],
        currency=intent.get("currency") or "",
        client_secret=intent.get("client_secret") or "",
        payment_id=int(ours) if ours.isdecimal() else None,
        redirect_url=redirect.get("url") or "",
        qr_url=qr_code.get("image_url_png") or qr_code.get("hosted_instructions_url") or "",
        failure=(error.get("message") or "")[:300],
    )
