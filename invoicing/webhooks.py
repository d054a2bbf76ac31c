"""Messages of the payment provider: verified, stored first, handled once, in whatever order."""

import json
from datetime import datetime

from django.db import transaction

from . import gateway, settling
from .models import WebhookEvent
from .refusals import InvalidSignature

HANDLED = "payment_intent."


def receive(*, payload: bytes, signature: str, now: datetime) -> WebhookEvent:
    """Store a message that the provider signed; a repeat returns the stored one.

    Raises InvalidSignature.
    """
    gateway.verify(payload=payload, signature=signature)
    try:
        body = json.loads(payload)
        provider_id, kind = str(body["id"])[:100], str(body["type"])[:100]
    except (ValueError, KeyError, TypeError):
        raise InvalidSignature("The body is not an event of the payment provider.") from None
    event, _ = WebhookEvent.objects.get_or_create(
        provider_id=provider_id, defaults={"kind": kind, "body": body, "received_at": now}
    )
    return event


@transaction.atomic
def handle(*, event_id: int, now: datetime) -> str:
    """Act on a stored message once; a repeat returns the first outcome."""
    event = WebhookEvent.objects.select_for_update().get(id=event_id)
    if event.handled_at is not None:
        return event.outcome
    outcome = "ignored"
    if event.kind.startswith(HANDLED):
        intent = gateway.intent_of_event(event.body["data"]["object"])
        outcome = settling.apply_intent(intent=intent, now=now)
    event.handled_at, event.outcome = now, outcome[:300]
    event.save(update_fields=["handled_at", "outcome"])
    return event.outcome


def unhandled(*, limit: int = 500) -> list[int]:
    """Ids of stored messages that still wait, oldest first."""
    waiting = WebhookEvent.objects.filter(handled_at__isnull=True)
    return list(waiting.order_by("received_at").values_list("id", flat=True)[:limit])
