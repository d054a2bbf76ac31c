"""Partitions are made ahead and dropped behind; no balance moves and every total stays provable."""

from datetime import date, timedelta

import pytest
from django.db import DatabaseError, connection, transaction

from accounts.models import Subscriber
from usage import partitions, proof
from usage.models import Bucket, DroppedDay, EventKey, LedgerEntry, Node, UsageEvent
from usage.periods import day_of

from .conftest import NOON, START, counts, event, give, left, send

DAY = timedelta(days=1)


def rows_in(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {table}")  # noqa: S608
        return int(cursor.fetchone()[0])


def test_making_ahead_twice_makes_nothing_new(db: None) -> None:
    made = partitions.make_ahead(now=NOON, days_back=2)
    assert made[:2] == ["usage_usageevent_20261122", "usage_usageevent_20261123"]
    assert len([name for name in made if "usageevent" in name]) == 2 + 1 + 14
    assert [name[-6:] for name in made if "ledger" in name] == [
        "202610", "202611", "202612", "202701", "202702",
    ]  # fmt: skip
    assert partitions.make_ahead(now=NOON, days_back=2) == []
    assert len(partitions.make_ahead(now=NOON + DAY, days_back=2)) == 1


def test_rows_that_came_before_their_partition_move_and_balances_do_not(
    node: Node, month: Bucket
) -> None:
    send(node, event("e1", 10), event("e2", 5, at=NOON - DAY))
    assert (rows_in("usage_usageevent_default"), rows_in("usage_ledgerentry_default")) == (2, 3)
    partitions.make_ahead(now=NOON, days_back=1)
    assert (rows_in("usage_usageevent_default"), rows_in("usage_ledgerentry_default")) == (0, 0)
    assert (rows_in("usage_usageevent_20261124"), rows_in("usage_usageevent_20261123")) == (1, 1)
    assert left(month) == 985_000
    assert proof.verify() == []
    send(node, event("e3", 1))
    assert (rows_in("usage_usageevent_20261124"), left(month)) == (2, 984_000)


@pytest.mark.parametrize(
    "table",
    [
        "usage_usageevent_20261124",
        "usage_usageevent_default",
        "usage_ledgerentry_202611",
        "usage_ledgerentry_default",
    ],
)
def test_a_partition_is_as_append_only_as_the_whole(
    node: Node, subscriber: Subscriber, table: str
) -> None:
    partitions.make_ahead(now=NOON, days_back=0)
    far = START - 35 * DAY
    give(subscriber, 1, start=far, end=far + 30 * DAY, now=far)  # lies in the default partition
    send(node, event("e1", 1), event("e2", 1, at=far))
    assert rows_in(table) > 0
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET subscriber_id = 1"):  # noqa: S608
        with (
            pytest.raises(DatabaseError, match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_days_are_cut_in_the_billing_zone(node: Node, subscriber: Subscriber) -> None:
    partitions.make_ahead(now=NOON, days_back=2)
    midnight = NOON.replace(hour=0)
    send(node, event("e1", 1, at=midnight - timedelta(microseconds=1)), event("e2", 1, at=midnight))
    assert rows_in("usage_usageevent_20261123") == rows_in("usage_usageevent_20261124") == 1


def test_a_dropped_day_leaves_its_totals(node: Node, subscriber: Subscriber) -> None:
    partitions.make_ahead(now=NOON, days_back=2)
    send(node, event("e1", 7, at=NOON - DAY), event("e2", 5), event("e3", 5, subject="+0"))
    later = NOON + 400 * DAY
    assert partitions.drop_old_days(now=later - DAY) == [date(2026, 11, 22)]
    assert partitions.drop_old_days(now=later) == [date(2026, 11, 23)]
    assert partitions.drop_old_days(now=later) == []
    dropped = DroppedDay.objects.get(day=date(2026, 11, 23))
    assert (dropped.events, dropped.mt) == (1, 7000)
    assert list(UsageEvent.objects.values_list("event_id", flat=True)) == ["e2"]
    assert proof.verify() == []


def test_the_totals_of_a_dropped_day_are_still_proven(node: Node, subscriber: Subscriber) -> None:
    partitions.make_ahead(now=NOON, days_back=0)
    send(node, event("e1", 7), event("e2", 5000))
    period = {"start": date(2026, 11, 1), "end": date(2026, 12, 1)}
    before = proof.period_totals(**period)
    partitions.drop_old_days(now=NOON + 402 * DAY)
    assert not UsageEvent.objects.exists()
    assert proof.period_totals(**period) == before
    assert before[1] == []


def test_dropping_is_bounded(db: None) -> None:
    partitions.make_ahead(now=NOON, days_back=5)
    later = NOON + 402 * DAY
    dropped = [partitions.drop_old_days(now=later, limit=4) for _round in range(3)]
    assert [len(days) for days in dropped] == [4, 3, 0]


def test_a_key_is_kept_for_seventy_days(node: Node, month: Bucket) -> None:
    send(node, event("e1", 1))
    assert partitions.purge_keys(now=NOON + 70 * DAY) == 0
    assert EventKey.objects.get().day == day_of(NOON)
    assert partitions.purge_keys(now=NOON + 71 * DAY) == 1
    # By then the event is too old to be counted a second time.
    assert counts(send(node, event("e1", 1), now=NOON + 71 * DAY)) == (0, 0, 0, 1)
    assert left(month) == 999_000


def test_purging_is_bounded(node: Node, subscriber: Subscriber) -> None:
    send(node, *(event(f"e{number}", 1) for number in range(5)))
    later = NOON + 71 * DAY
    assert partitions.purge_keys(now=later, limit=2, rounds=2) == 4
    assert partitions.purge_keys(now=later, limit=2, rounds=2) == 1
    assert partitions.purge_keys(now=later, limit=2, rounds=2) == 0


def test_the_ledger_keeps_its_numbers_across_partitions(node: Node, month: Bucket) -> None:
    send(node, event("e1", 10))
    ids = list(LedgerEntry.objects.order_by("id").values_list("id", flat=True))
    partitions.make_ahead(now=NOON, days_back=0)
    assert list(LedgerEntry.objects.order_by("id").values_list("id", flat=True)) == ids
