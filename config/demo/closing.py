"""The month's end: renewals, close and bill run, done by the Celery worker and awaited here."""

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings

from invoicing import billrun
from invoicing.tasks import issue_invoices
from plans.models import Subscription
from plans.tasks import renew_subscriptions
from usage.models import Bucket
from usage.periods import cycle_end
from usage.tasks import close_buckets

from .patience import patiently
from .replay import move_clock_to

PATIENCE_SECONDS = 180
ASK_AGAIN_SECONDS = 20


class TooSlow(Exception):
    """A background task did not get done in time; the message says which."""


def close_month(cycle: date, say: Callable[[str], None]) -> None:
    """Turn the month, close its buckets after the grace time, issue its invoices."""
    end = cycle_end(cycle)
    say("the month turns: next month's tokens are granted ahead of it")
    now = end - timedelta(seconds=settings.RENEWAL_LEAD_SECONDS)
    move_clock_to(now)
    _until("renewal", renew_subscriptions, [], lambda: not _renewals_due(end))
    say("the grace time is over: what is left of the month expires")
    now = end + timedelta(minutes=61)
    move_clock_to(now)
    _until("close", close_buckets, [], lambda: not _to_close(now))
    say("the bill run issues the invoices")
    move_clock_to(end + timedelta(minutes=125))
    _until("bill run", issue_invoices, [f"{cycle:%Y-%m}"], lambda: billrun.is_done(cycle=cycle))


def _renewals_due(now: datetime) -> bool:
    return Subscription.objects.filter(renews_at__lte=now).exists()


def _to_close(now: datetime) -> bool:
    return Bucket.objects.filter(closed_at=None, close_at__lte=now).exists()


def _until(name: str, task: Any, arguments: list[str], done: Callable[[], bool]) -> None:
    """Ask the worker for a task until its work is done; a task that dies with its worker is asked
    for again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    asked = 0.0
    while time.monotonic() < deadline:
        if time.monotonic() - asked > ASK_AGAIN_SECONDS:
            task.delay(*arguments)
            asked = time.monotonic()
        time.sleep(0.2)
        if patiently(done):
            return
    raise TooSlow(f"The {name} was not done in {PATIENCE_SECONDS} s; see the worker's log.")
