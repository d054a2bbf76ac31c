"""Background work of plans: the table is the queue, work is found by looking."""

from celery import shared_task

from config import clock

from . import subscribing

ROUNDS = 100  # at most this many thousand renewals a run; the next run goes on


@shared_task
def renew_subscriptions() -> None:
    """Beat, every minute: grant and charge the months that have begun. Safe twice or at once."""
    now = clock.now()
    for _ in range(ROUNDS):
        if not subscribing.renew_due(now=now):
            return
