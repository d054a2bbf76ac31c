"""Messages to people: written in the transaction that causes them, sent afterwards.

Delivery is at least once. A row is claimed in one short transaction (its next attempt moves past a
lease), sent while no transaction is open, then marked. A process killed between sending and marking
leaves the row waiting; after the lease it goes out a second time with the same key.
"""

import logging
import time
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from accounts.models import OutboxMessage
from accounts.senders import Sender, SendFailed, configured_sender
from config.errors import DomainError

logger = logging.getLogger(__name__)

State = OutboxMessage.State

MAX_ATTEMPTS = 8
_CHUNK = 20
# A chunk of 20 sends of 5 seconds each, and the budget below, end well before the lease does.
_LEASE = timedelta(minutes=15)
_BUDGET_SECONDS = 300
_FIRST_BACKOFF = timedelta(seconds=30)
_LONGEST_BACKOFF = timedelta(hours=1)


class MessageNotSent(DomainError):
    """A message that must go out at once did not."""

    code = "message_not_sent"
    status = 503
    title = "Message not sent"


def enqueue(
    *,
    key: str,
    recipient: str,
    template: str,
    body: str,
    now: datetime,
    subscriber_id: int | None = None,
) -> bool:
    """Write a message to be sent; False when one with this key was written before."""
    _, created = OutboxMessage.objects.get_or_create(
        key=key,
        defaults={
            "recipient": recipient,
            "subscriber_id": subscriber_id,
            "template": template,
            "body": body,
            "next_attempt_at": now,
            "created_at": now,
        },
    )
    return created


def send_now(*, key: str, recipient: str, template: str, body: str) -> None:
    """Send at once and store nothing: for one-time codes, which must not lie in a table.

    Waits on the network, so never call it inside a transaction. Raises MessageNotSent.
    """
    try:
        configured_sender().send(key=key, recipient=recipient, template=template, body=body)
    except SendFailed as failure:
        logger.warning("message %s not sent: %s", key, failure)
        raise MessageNotSent("The message could not be sent; try again in a minute.") from failure


def deliver_due(*, now: datetime, limit: int = 500) -> int:
    """Send up to `limit` waiting messages that are due; returns how many went out.

    Any number of workers may run it at once: claimed rows are skipped, not waited for.
    """
    _give_up_exhausted(now)
    sender = configured_sender()
    started = time.monotonic()
    claimed = sent = 0
    while claimed < limit and time.monotonic() - started < _BUDGET_SECONDS:
        messages = _claim(now=now, limit=min(_CHUNK, limit - claimed))
        if not messages:
            break
        claimed += len(messages)
        sent += sum(_deliver(message, sender, now) for message in messages)
    return sent


@transaction.atomic
def _claim(*, now: datetime, limit: int) -> list[OutboxMessage]:
    due = OutboxMessage.objects.select_for_update(skip_locked=True, of=("self",)).filter(
        state=State.WAITING, next_attempt_at__lte=now, attempts__lt=MAX_ATTEMPTS
    )
    messages = list(due.order_by("next_attempt_at", "id")[:limit])
    OutboxMessage.objects.filter(id__in=[message.id for message in messages]).update(
        attempts=F("attempts") + 1, next_attempt_at=now + _LEASE
    )
    return messages


def _deliver(message: OutboxMessage, sender: Sender, now: datetime) -> bool:
    # The guard on the state keeps a late second sender from undoing what the first one wrote.
    waiting = OutboxMessage.objects.filter(id=message.id, state=State.WAITING)
    attempts = message.attempts + 1  # as the claim counted
    try:
        sender.send(
            key=message.key,
            recipient=message.recipient,
            template=message.template,
            body=message.body,
        )
    except SendFailed as failure:
        logger.warning("message %s, attempt %s: %s", message.key, attempts, failure)
        waiting.update(
            state=State.FAILED if attempts >= MAX_ATTEMPTS else State.WAITING,
            next_attempt_at=now + _backoff(attempts),
            last_error=str(failure),
        )
        return False
    waiting.update(state=State.SENT, sent_at=now, last_error="")
    return True


def _give_up_exhausted(now: datetime) -> None:
    """Close rows whose last attempt was killed: nobody else would ever touch them again."""
    OutboxMessage.objects.filter(
        state=State.WAITING, next_attempt_at__lte=now, attempts__gte=MAX_ATTEMPTS
    ).update(state=State.FAILED, last_error="The last attempt did not end.")


def _backoff(attempts: int) -> timedelta:
    return min(_FIRST_BACKOFF * (1 << (attempts - 1)), _LONGEST_BACKOFF)
