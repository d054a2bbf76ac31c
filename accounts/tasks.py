"""Background work of accounts. Every task may run twice, at once, or be killed."""

from celery import shared_task

from accounts import outbox
from config import clock


@shared_task
def deliver_messages() -> None:
    """Beat, every ten seconds. The table is the queue: work is found by looking, none is lost."""
    outbox.deliver_due(now=clock.now())
