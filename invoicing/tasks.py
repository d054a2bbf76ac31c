"""Background work of invoicing: the tables are the queue, so nothing can be lost on the way."""

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from config import clock
from usage import periods

from . import assurance, billrun, gateway, settling, webhooks

SECONDS_FOR_A_CYCLE = 6 * 3600
ISSUE_FROM = timedelta(hours=2)  # after the cycle's end: its buckets are closed by then
logger = logging.getLogger(__name__)


# Acknowledged before it begins, since no broker waits for hours: RabbitMQ closes the channel of a
# worker that owes an answer for half an hour, others hand the task out again. Beat takes up a run
# that was killed.
@shared_task(
    acks_late=False, time_limit=SECONDS_FOR_A_CYCLE, soft_time_limit=SECONDS_FOR_A_CYCLE - 60
)
def issue_invoices(cycle: str = "") -> None:
    """Bill a cycle such as "2026-10"; without one, the month that ended, unless that is done, and
    whatever was begun.

    Beat asks every hour, so a run that was killed is taken up again within the hour; one that is
    at work is left alone.
    """
    now = clock.now()
    if cycle:
        billrun.bill_cycle(cycle=periods.parse_cycle(cycle), now=now)
        return
    if billrun.is_at_work():
        return
    ended = periods.previous_cycle(periods.cycle_of(now))
    due = now >= periods.cycle_end(ended) + ISSUE_FROM and not billrun.is_done(cycle=ended)
    # The oldest first, since a later run would put what is left of it on its own invoices.
    for open_cycle in sorted({*billrun.begun(), *([ended] if due else [])}):
        billrun.bill_cycle(cycle=open_cycle, now=now)


@shared_task
def assure_yesterday() -> None:
    """Beat, every night: prove the day that ended, and on the 1st the month with it."""
    now = clock.now()
    today = periods.day_of(now)
    spans = [(today - timedelta(days=1), today)]
    if today.day == 1:
        spans.append((periods.previous_cycle(today), today))
    for start, end in spans:
        result = assurance.record(start=start, end=end, now=now)
        if not result.proven:
            logger.error("assurance of %s to %s: %s", start, end, result.report["differences"])


@shared_task
def settle_payments() -> None:
    """Beat, every minute: messages that wait, payments whose message is lost, paid orders."""
    now = clock.now()
    for event_id in webhooks.unhandled():
        handle_webhook.delay(event_id)
    if gateway.is_configured():
        settling.poll_pending(now=now, older_than=timedelta(minutes=settings.PAYMENT_POLL_MINUTES))
    settling.fulfil_paid_orders(now=now)


@shared_task
def cancel_unpaid_orders() -> None:
    """Beat, every hour: orders to be paid first that nobody paid. The next hour goes on."""
    settling.cancel_unpaid_orders(
        now=clock.now(), older_than=timedelta(hours=settings.ORDER_PAYMENT_HOURS)
    )


@shared_task
def handle_webhook(event_id: int) -> None:
    """Safe to run twice or at once: the event's row is locked and handled once."""
    webhooks.handle(event_id=event_id, now=clock.now())
