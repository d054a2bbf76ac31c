"""What a month leaves goes on by the terms of its bucket, once, and never to a third month."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from accounts.models import Subscriber
from usage import ledger, movements, pools, proof
from usage.ledger import Grant
from usage.models import UNCAPPED, Bucket, LedgerEntry, Node, Overage

from .conftest import END, HOUR, NOON, SECOND, START, at, event, give, left, send
from .test_database_rules import sql

JANUARY, FEBRUARY = at("2027-01-01 00:00"), at("2027-02-01 00:00")


def monthly(
    subscriber: Subscriber, tokens: int, *, start: datetime = START, end: datetime = END,
    percent: int = 100, cap: int = UNCAPPED, **more: Any,
) -> Bucket:  # fmt: skip
    return give(
        subscriber, tokens, start=start, end=end, now=start, rollover_percent=percent,
        rollover_cap_mt=cap, **more,
    )  # fmt: skip


def close(end: datetime) -> int:
    return ledger.close_due_buckets(now=end + HOUR)


def rolled(bucket: Bucket) -> Bucket:
    return Bucket.objects.get(key=f"rollover:{bucket.pk}")


@pytest.mark.parametrize(
    ("granted", "used", "percent", "cap", "expected"),
    [
        (100, 10, 100, 50_000, 50_000),  # roll-01
        (200, 50, 100, 100_000, 100_000),  # roll-04
        (200, 150, 100, 100_000, 50_000),  # roll-05
        (100, 0, 50, UNCAPPED, 50_000),
        (100, 99, 33, UNCAPPED, 330),
        (10**9, 0, 100, UNCAPPED, 10**12),
    ],
)
def test_a_share_up_to_a_cap_goes_on_and_the_rest_expires(
    node: Node, bare: Subscriber, granted: int, used: int, percent: int, cap: int, expected: int
) -> None:
    bucket = monthly(bare, granted, percent=percent, cap=cap)
    if used:
        send(node, event("e1", used))
    assert close(END) == 1
    following = rolled(bucket)
    assert (following.remaining_mt, following.granted_mt) == (expected, expected)
    assert (following.valid_from, following.valid_until) == (END, JANUARY)
    assert (following.kind, following.priority, following.rollover_percent) == ("rollover", 10, 0)
    rest = (granted - used) * 1000 - expected
    entries = LedgerEntry.objects.filter(bucket_id=bucket.pk, kind__in=["rollover", "expiry"])
    wanted = [("rollover", -expected)] + ([("expiry", -rest)] if rest else [])
    assert list(entries.order_by("id").values_list("kind", "amount_mt")) == wanted
    assert proof.verify() == []


def test_a_share_is_rounded_down_to_the_millitoken(bare: Subscriber) -> None:
    bucket = monthly(bare, 1, percent=50)
    movements.adjust(bucket_id=bucket.pk, amount_mt=-1, key="k", actor="c", reason="r", now=START)
    assert close(END) == 1
    assert rolled(bucket).granted_mt == 499
    assert proof.verify() == []


def test_a_bucket_without_terms_rolls_nothing(month: Bucket) -> None:
    assert close(END) == 1
    assert Bucket.objects.count() == 1


def test_a_part_below_one_millitoken_rolls_nothing(node: Node, bare: Subscriber) -> None:
    bucket = monthly(bare, 1, percent=1)
    send(node, event("e1", usage={"prompt_tokens": 9, "prompt_tokens_details": {
        "cached_tokens": 9}}, model="fine"))  # fmt: skip
    assert left(bucket) == 100
    send(node, event("e2", usage={"prompt_tokens": 1, "prompt_tokens_details": {
        "cached_tokens": 1}}, model="fine"))  # fmt: skip
    assert close(END) == 1
    assert Bucket.objects.count() == 1


def test_month_to_month_rolled_first_never_to_a_third(node: Node, bare: Subscriber) -> None:
    """BAL-13."""
    months = [START, END, JANUARY, FEBRUARY]
    uses, buckets, carried, expired = [6_000_000, 3_000_000, 12_000_000], [], [], []
    for number, tokens in enumerate(uses):
        start, end = months[number], months[number + 1]
        buckets.append(monthly(bare, 10_000_000, start=start, end=end))
        when = start + 5 * HOUR
        carried.append(sum(b.remaining_mt for b in Bucket.objects.filter(kind="rollover")))
        send(node, event(f"e{number}", tokens, at=when), now=when)
        before = LedgerEntry.objects.filter(kind="expiry").count()
        close(end)
        gone = LedgerEntry.objects.filter(kind="expiry").order_by("id")[before:]
        expired.append(-sum(entry.amount_mt for entry in gone))
    assert carried == [0, 4_000_000_000, 10_000_000_000]
    assert expired == [0, 1_000_000_000, 0]
    assert [rolled(one).granted_mt for one in buckets] == [
        4_000_000_000, 10_000_000_000, 8_000_000_000,
    ]  # fmt: skip
    assert not Overage.objects.exists()
    assert proof.verify() == []


def test_a_pack_is_not_rolled_and_used_after_the_plan(node: Node, bare: Subscriber) -> None:
    """BAL-14: the pack expires."""
    give(bare, 400, kind="pack")
    monthly(bare, 10)
    send(node, event("e1", 11))
    close(END)
    assert not Bucket.objects.filter(kind="rollover").exists()


def test_rolled_tokens_keep_models_and_hours(bare: Subscriber) -> None:
    bucket = monthly(bare, 5, model_ids=[3], minute_from=0, minute_until=480)
    close(END)
    following = rolled(bucket)
    assert (following.model_ids, following.minute_from, following.minute_until) == ([3], 0, 480)


def test_what_a_session_holds_is_rolled_when_it_is_given_back(bare: Subscriber) -> None:
    bucket = monthly(bare, 5)
    sql("UPDATE usage_bucket SET reserved_mt = 1")
    assert close(END) == 0
    sql("UPDATE usage_bucket SET reserved_mt = 0")
    assert close(END) == 1
    assert rolled(bucket).remaining_mt == 5000


def test_what_comes_within_the_grace_is_paid_before_the_rest_rolls(
    node: Node, bare: Subscriber
) -> None:
    bucket = monthly(bare, 100, percent=33)
    just_before = END + HOUR - SECOND
    send(node, event("e1", 10, at=END - SECOND), now=just_before)
    ledger.close_due_buckets(now=just_before)
    assert left(bucket) == 90_000
    close(END)
    send(node, event("e2", 1, at=END), now=END + 2 * HOUR)
    assert rolled(bucket).remaining_mt == 29_700 - 1000
    send(node, event("e3", 1, at=END - SECOND), now=END + 2 * HOUR)
    assert rolled(bucket).remaining_mt == 29_700 - 2000
    assert proof.verify() == []


def test_a_close_that_is_repeated_rolls_once(bare: Subscriber) -> None:
    monthly(bare, 5)
    assert [close(END), close(END)] == [1, 0]
    assert Bucket.objects.filter(kind="rollover").count() == 1


def test_a_close_months_late_ends_in_the_following_month(bare: Subscriber) -> None:
    bucket = monthly(bare, 5)
    late = FEBRUARY + timedelta(days=3)
    ledger.close_due_buckets(now=late)
    assert (rolled(bucket).valid_until, rolled(bucket).close_at) == (JANUARY, late + HOUR)
    ledger.close_due_buckets(now=late + HOUR)
    assert rolled(bucket).remaining_mt == 0
    assert proof.verify() == []


def test_the_bucket_of_a_pool_rolls_within_the_pool(bare: Subscriber) -> None:
    pool = pools.create_pool(
        account_id=bare.account_id, name="Wang", kind="family", now=START
    )  # fmt: skip
    wanted = Grant(
        pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=9000, valid_from=START,
        valid_until=END, key="p", rollover_percent=100, rollover_cap_mt=UNCAPPED,
    )  # fmt: skip
    bucket, _new = pools.grant_to_pool(wanted=wanted, now=NOON)
    close(END)
    assert (rolled(bucket).pool_id, rolled(bucket).remaining_mt) == (pool.pk, 9000)
    assert proof.verify() == []
