"""Renewal grants and charges each month exactly once, however often it runs or dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from accounts.models import Account, Subscriber
from plans import charging, subscribing, tasks
from plans.models import Charge, Subscription
from usage.models import Bucket
from usage.proof import verify

from .conftest import NOON, at, close_connection, make_subscriber

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shipped")]
DECEMBER = at("2026-12-01 00:00")


def subscribe(subscriber: Subscriber) -> Subscription:
    return subscribing.subscribe(
        subscriber_id=subscriber.pk,
        plan_code="token-9.9",
        starts_at=at("2026-11-01 00:00"),
        actor="clerk",
        now=NOON,
    )


def granted(cycle: str) -> tuple[int, int]:
    """How many buckets and fees there are of a cycle."""
    return (
        Bucket.objects.filter(key__endswith=f":{cycle}").count(),
        Charge.objects.filter(key__endswith=f":{cycle}").count(),
    )


def test_a_months_tokens_are_there_when_it_begins_at_midnight_of_the_billing_zone(
    subscriber: Subscriber,
) -> None:
    subscribe(subscriber)
    assert subscribing.renew_due(now=datetime.fromisoformat("2026-11-30T15:49:59+00:00")) == 0
    assert subscribing.renew_due(now=datetime.fromisoformat("2026-11-30T15:50:00+00:00")) == 1
    assert granted("2026-12") == (1, 1)
    bucket = Bucket.objects.get(key__endswith=":2026-12")
    assert bucket.valid_from == datetime.fromisoformat("2026-11-30T16:00:00+00:00")


def test_a_plan_that_ends_with_the_month_is_not_renewed_ahead(subscriber: Subscriber) -> None:
    subscription = subscribe(subscriber)
    subscribing.end_subscription(subscription_id=subscription.pk, actor="clerk", now=NOON)
    assert subscribing.renew_due(now=datetime.fromisoformat("2026-11-30T15:55:00+00:00")) == 0
    assert subscribing.renew_due(now=datetime.fromisoformat("2026-11-30T16:00:00+00:00")) == 1
    assert granted("2026-12") == (0, 0)


def test_a_second_run_finds_the_month_done(subscriber: Subscriber) -> None:
    subscribe(subscriber)
    assert [subscribing.renew_due(now=DECEMBER) for _ in range(3)] == [1, 0, 0]
    assert granted("2026-12") == (1, 1)


def test_months_that_were_missed_are_made_good(subscriber: Subscriber) -> None:
    subscribe(subscriber)
    assert subscribing.renew_due(now=at("2027-02-15 00:00")) == 1
    assert [granted(cycle) for cycle in ("2026-12", "2027-01", "2027-02", "2027-03")] == [
        (1, 1),
        (1, 1),
        (1, 1),
        (0, 0),
    ]
    assert verify() == []


def test_a_run_is_bounded_and_the_next_one_goes_on(account: Account) -> None:
    for number in range(3):
        subscribe(make_subscriber(account, f"+861390000001{number}"))
    assert [subscribing.renew_due(now=DECEMBER, limit=2) for _ in range(3)] == [2, 1, 0]
    assert granted("2026-12") == (3, 3)


def test_the_task_renews_until_nothing_is_due(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        subscribe(make_subscriber(account, f"+861390000001{number}"))
    monkeypatch.setattr("config.clock.now", lambda: DECEMBER)
    tasks.renew_subscriptions()
    assert granted("2026-12") == (3, 3)


def test_a_failure_between_grant_and_charge_leaves_neither_and_holds_up_no_other(
    subscriber: Subscriber, neighbour: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = subscribe(subscriber), subscribe(neighbour)
    book = charging.book_new

    def fail_for_the_first(*, charges: Sequence[Charge]) -> None:
        if subscriber.pk in {charge.subscriber_id for charge in charges}:
            raise RuntimeError("the disk is full")
        book(charges=charges)

    monkeypatch.setattr(charging, "book_new", fail_for_the_first)
    assert subscribing.renew_due(now=DECEMBER) == 1
    assert granted("2026-12") == (1, 1)
    first.refresh_from_db()
    assert first.renews_at == DECEMBER

    monkeypatch.setattr(charging, "book_new", book)
    assert subscribing.renew_due(now=DECEMBER) == 1
    assert granted("2026-12") == (2, 2)


@pytest.mark.django_db(transaction=True)
def test_two_shards_and_more_at_once_renew_each_subscription_once(account: Account) -> None:
    for number in range(6):
        subscribe(make_subscriber(account, f"+861390000001{number}"))

    def run(_: int) -> int:
        try:
            return subscribing.renew_due(now=DECEMBER)
        finally:
            close_connection()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(4))) == 6
    assert granted("2026-12") == (6, 6)
    assert verify() == []


KILLED_BEFORE_THE_CHARGE = """
import sys, time
import django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from plans import charging, subscribing
from usage.periods import parse_day, day_start

def tell_and_wait(**_):
    print("granted", flush=True)
    time.sleep(60)

charging.book_new = tell_and_wait
subscribing.renew_due(now=day_start(parse_day("2026-12-01")))
"""


@pytest.mark.django_db(transaction=True)
def test_a_renewal_killed_between_grant_and_charge_leaves_neither(subscriber: Subscriber) -> None:
    subscribe(subscriber)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "VAR_DIR": str(Path(os.environ["VAR_DIR"]).parent),
    }
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_BEFORE_THE_CHARGE, connection.settings_dict["NAME"]],
        cwd=settings.BASE_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "granted\n"
        worker.send_signal(signal.SIGKILL)
    assert granted("2026-12") == (0, 0)
    assert subscribing.renew_due(now=DECEMBER) == 1
    assert granted("2026-12") == (1, 1)
    assert verify() == []
