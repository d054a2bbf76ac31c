"""Off-peak buckets pay within their hours of the billing-zone day, over midnight too."""

import pytest

from accounts.models import Subscriber
from usage import balances, enforcement
from usage.models import ChargingProfile, Node

from .conftest import INSTANT, START, at, event, give, left, send


@pytest.mark.parametrize(
    ("hours", "time", "pays"),
    [
        ((0, 480), "2026-11-24 00:00", True),
        ((0, 480), "2026-11-24 07:59", True),
        ((0, 480), "2026-11-24 08:00", False),
        ((1320, 480), "2026-11-24 21:59", False),
        ((1320, 480), "2026-11-24 22:00", True),
        ((1320, 480), "2026-11-24 03:00", True),
        ((1320, 480), "2026-11-24 08:00", False),
        ((1320, 1440), "2026-11-24 23:59", True),
        ((1320, 1440), "2026-11-25 00:00", False),
    ],
)
def test_a_bucket_pays_within_its_hours(
    node: Node, bare: Subscriber, hours: tuple[int, int], time: str, pays: bool
) -> None:
    bucket = give(bare, 10, minute_from=hours[0], minute_until=hours[1])
    send(node, event("e1", 4, at=at(time)), now=at(time))
    assert left(bucket) == (6000 if pays else 10_000)


def test_the_last_instant_before_the_end_is_within(node: Node, bare: Subscriber) -> None:
    bucket = give(bare, 10, minute_from=0, minute_until=480)
    when = at("2026-11-24 08:00") - INSTANT
    send(node, event("e1", 4, at=when), now=when)
    assert left(bucket) == 6000


def test_who_has_only_night_tokens_is_open_at_night(bare: Subscriber) -> None:
    give(bare, 10, minute_from=1320, minute_until=480, now=START)
    for time, verdict in (("10:00", "quota_exhausted"), ("22:00", ""), ("08:00", "")):
        enforcement.sweep(now=at(f"2026-11-24 {time}"))
        if time != "08:00":
            assert ChargingProfile.objects.get().blocked == verdict


def test_the_balance_counts_what_can_be_used_at_this_hour(bare: Subscriber) -> None:
    give(bare, 10)
    give(bare, 90, minute_from=0, minute_until=480)
    for time, usable in (("07:59", 100_000), ("08:00", 10_000)):
        found = balances.balance(subscriber_id=bare.pk, now=at(f"2026-11-24 {time}"))
        assert (found.available_mt, len(found.buckets)) == (usable, 2)
