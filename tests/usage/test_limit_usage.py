"""What limits are held against: sums by day that say the same as the events, whatever comes."""

import random
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection

from accounts.models import ApiKey, Subscriber
from config import clock
from usage import corrections, limit_usage, limits, proof
from usage.database import fast_cursor
from usage.models import Amendment, ChargingProfile, LimitUsage, Node, UsageEvent
from usage.normalising import Counts
from usage.periods import cycle_of, cycle_start, day_of

from .conftest import INSTANT, NOON, at, event, send
from .test_limits import DAY, MONTH, REQUESTS, WEEK, key, limit, rich

__all__ = ["key", "rich"]  # fixtures

MINUTES, DAYS = timedelta(minutes=1), timedelta(days=1)


def used_by_events(subscriber: Subscriber, since: datetime, key: ApiKey | None = None) -> int:
    """What the rows say, whatever is summed beside them."""
    events = UsageEvent.objects.filter(subscriber_id=subscriber.pk, occurred_at__gte=since)
    if key is not None:
        events = events.filter(api_key_id=key.pk)
    ids = list(events.values_list("id", flat=True))
    parts = events.values_list("mt"), Amendment.objects.filter(event_id__in=ids).values_list("mt")
    return sum(mt for part in parts for (mt,) in part)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_summed_by_day_is_what_the_events_say(
    node: Node, rich: Subscriber, key: ApiKey, seed: int
) -> None:
    """However usage, corrections and the first limit come, also late and from before it."""
    dice = random.Random(seed)
    starts = at("2026-11-24 00:00"), at("2026-11-23 00:00"), at("2026-11-01 00:00")
    counted = 0
    for step in range(40):
        now = NOON + step * MINUTES
        if step == 12:
            limit(rich, MONTH, 10**9, now=now)
        subject = dice.choice([rich.msisdn, key.public_id])
        when = dice.choice([now, NOON - dice.randint(0, 24) * DAYS, *starts])
        if step < 3 or dice.random() < 0.6:
            sent = event(f"e{step}", dice.randint(1, 99), at=when, subject=subject)
            send(node, sent, sent, now=now)
            counted += 1
        else:
            chosen = UsageEvent.objects.order_by("?").first()
            assert chosen is not None
            about: dict[str, Any] = {"event_id": chosen.pk, "actor": "c", "reason": "r", "now": now}
            with suppress(corrections.CorrectionRefused):
                if dice.random() < 0.5:
                    corrections.void(**about, key=f"v{step}")
                else:
                    counts = Counts(dice.randint(0, 200), 0, 0, 0)
                    corrections.amend(**about, counts=counts, key=f"a{step}")
    with fast_cursor() as cursor:
        for window, since in zip((DAY, WEEK, MONTH), starts, strict=True):
            assert limits.window_start(window, NOON) == since
            for of_key in (None, key):
                assert limit_usage.used_since(
                    cursor, subscriber_id=rich.pk, day=day_of(since),
                    api_key_id=of_key.pk if of_key else None,
                ) == used_by_events(rich, since, of_key)  # fmt: skip
    assert counted > 10 and proof.verify() == []


def test_of_those_without_a_limit_nothing_is_summed(node: Node, rich: Subscriber) -> None:
    limits.set_limit(subscriber_id=rich.pk, window=DAY, unit=REQUESTS, amount=5, now=NOON)
    send(node, event("e1", 5))
    assert not LimitUsage.objects.exists()


def test_old_sums_are_forgotten(node: Node, rich: Subscriber) -> None:
    limit(rich, DAY, 1000)
    send(node, event("e1", 5))
    assert limit_usage.purge(now=NOON + 100 * DAYS) == 0
    assert limit_usage.purge(now=NOON + 101 * DAYS) == 1


def test_days_from_before_the_first_limit_are_not_summed_in_part(
    node: Node, rich: Subscriber
) -> None:
    october = at("2026-11-01 00:00") - INSTANT
    send(node, event("before", 5, at=october))
    limit(rich, WEEK, 1000)
    send(node, event("after", 6, at=october), event("now", 7))
    assert list(LimitUsage.objects.values_list("day", "mt")) == [(day_of(NOON), 7000)]
    assert proof.verify() == []


def test_an_upgrade_sums_up_what_the_limited_have_used(
    node: Node, rich: Subscriber, neighbour: Subscriber, key: ApiKey
) -> None:
    """Migration usage 0031, on what an older release left: limits without sums."""
    migration = import_module("usage.migrations.0031_sum_up_usage_of_the_limited")
    now = clock.now()
    months = cycle_start(cycle_of(now)), now
    for number, when in enumerate(months):
        send(node, event(f"e{number}", 70, at=when, subject=key.public_id), now=now)
    amended = UsageEvent.objects.latest("id")
    corrections.amend(
        event_id=amended.pk, actor="c", reason="r", key="a", now=now, counts=Counts(9, 0, 0, 0)
    )
    limit(rich, MONTH, 1000, now=now)
    send(node, event("other", 5, subject=neighbour.msisdn, at=now), now=now)

    def sums() -> list[tuple[Any, ...]]:
        return sorted(LimitUsage.objects.values_list("subscriber_id", "api_key_id", "day", "mt"))

    before = sums()
    LimitUsage.objects.all().delete()
    ChargingProfile.objects.update(limited_since=None)
    with connection.cursor() as cursor:
        cursor.execute(migration.SINCE)
        cursor.execute(migration.SUM_UP)
    assert sums() == before != []
    assert ChargingProfile.objects.filter(limited_since__isnull=False).count() == 1
    assert proof.verify() == []
