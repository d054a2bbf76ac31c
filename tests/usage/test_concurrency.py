"""Real threads on PostgreSQL: whatever meets, each event counts once and no balance drifts."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from threading import Barrier, Event
from typing import Any, ParamSpec, TypeVar

import pytest
from django.db import connection

from accounts import lifecycle
from accounts.models import Account, Subscriber
from usage import enforcement, ledger, movements, partitions, proof, quarantine
from usage.batches import BatchResult
from usage.models import BlockChange, Bucket, ChargingProfile, Node, QuarantinedEvent, UsageEvent

from .conftest import END, HOUR, NOON, SECOND, counts, event, give, left, make_subscriber, send

pytestmark = pytest.mark.django_db(transaction=True)
P = ParamSpec("P")
T = TypeVar("T")
NOVEMBER = {"start": date(2026, 11, 1), "end": date(2026, 12, 1)}


def closing(act: Callable[P, T]) -> Callable[P, T]:
    """The same, to be done by a thread: what it connects to is closed at its end."""

    def run(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return act(*arguments, **named)
        finally:
            connection.close()

    return run


def at_once(times: int, act: Callable[[int], Any]) -> list[Any]:
    """Run act(0), act(1)… in threads that start together; what one raises is raised."""
    barrier = Barrier(times)

    def one(index: int) -> Any:
        connection.ensure_connection()
        barrier.wait(timeout=10)
        return act(index)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(closing(one), range(times)))


@pytest.fixture
def crowd(account: Account) -> list[Subscriber]:
    """Five subscribers with 100 tokens each."""
    people = [make_subscriber(account, f"+861390000010{number}") for number in range(5)]
    for one in people:
        give(one, 100)
    return people


def test_one_batch_from_eight_threads_at_once_counts_once(node: Node, month: Bucket) -> None:
    batch = [event(f"e{number}", 10) for number in range(50)]
    results = at_once(8, lambda _index: send(node, *batch))
    assert sorted(map(counts, results)) == [(0, 50, 0, 0)] * 7 + [(50, 0, 0, 0)]
    assert left(month) == 500_000
    assert proof.verify() == []


def test_contradicting_copies_at_once_leave_one_counted(node: Node, month: Bucket) -> None:
    results = at_once(8, lambda index: send(node, event("e1", index + 1)))
    accepted = [one.tally.accepted_mt for one in results if one.tally.accepted]
    assert len(accepted) == 1
    assert sum(one.tally.conflict for one in results) == 7
    assert left(month) == 1_000_000 - accepted[0]
    assert proof.verify() == []


def test_overlapping_batches_on_hot_subscribers_neither_deadlock_nor_drift(
    node: Node, crowd: list[Subscriber], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread reports for all five in its own order, and much of it twice."""
    refuse_retries(monkeypatch)
    everything = [
        event(f"e{number}", 1 + number % 7, subject=crowd[number % 5].msisdn)
        for number in range(400)
    ]

    def report(index: int) -> list[BatchResult]:
        dice = random.Random(index)
        return [send(node, *dice.sample(everything, 60)) for _round in range(6)]

    answers = [one for part in at_once(8, report) for one in part]
    counted = UsageEvent.objects.count()
    assert sum(one.tally.accepted for one in answers) == counted
    assert sum(one.tally.received for one in answers) == 8 * 6 * 60
    assert all(bucket.remaining_mt >= 0 for bucket in Bucket.objects.all())
    assert proof.verify() == []
    totals, differences = proof.period_totals(**NOVEMBER)
    assert differences == []
    assert totals["accepted"] == counted


def refuse_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock would be tried again and pass unseen; here it fails the test."""
    monkeypatch.setattr("usage.ingest.retry_transaction", lambda fn: fn())


def test_disjoint_batches_of_one_subscriber_never_take_a_token_twice(
    node: Node, month: Bucket
) -> None:
    def report(index: int) -> list[BatchResult]:
        return [send(node, event(f"e{index}-{round}", 33)) for round in range(8)]

    answers = [one for part in at_once(8, report) for one in part]
    assert sum(one.tally.debited_mt for one in answers) == 1_000_000
    assert sum(one.tally.uncovered_mt for one in answers) == 64 * 33_000 - 1_000_000
    assert left(month) == 0
    assert proof.verify() == []


def test_one_grant_from_eight_threads_is_made_once(bare: Subscriber) -> None:
    buckets = at_once(8, lambda _index: give(bare, 5, key="once").pk)
    assert len(set(buckets)) == 1
    assert Bucket.objects.get().granted_mt == 5000


def test_grants_and_adjustments_meet_usage_without_drift(
    node: Node, bare: Subscriber, month: Bucket
) -> None:
    def act(index: int) -> None:
        for round in range(6):
            if index % 3 == 0:
                give(bare, 7, kind="pack", key=f"{index}-{round}", now=NOON)
            elif index % 3 == 1:
                movements.adjust(
                    bucket_id=month.pk,
                    amount_mt=1000,
                    key=f"{index}-{round}",
                    actor="c",
                    reason="r",
                    now=NOON,
                )
            else:
                send(node, event(f"{index}-{round}", 40))

    at_once(8, act)
    assert proof.verify() == []
    assert sum(one.granted_mt for one in Bucket.objects.all()) == (1000 + 3 * 6 * 7) * 1000
    assert Bucket.objects.get(pk=month.pk).adjusted_mt == 3 * 6 * 1000


def test_closing_meets_usage_without_a_token_between_them(
    node: Node, crowd: list[Subscriber]
) -> None:
    now = END + HOUR

    def act(index: int) -> int:
        if index < 3:
            return ledger.close_due_buckets(now=now)
        batch = [
            event(f"{index}-{number}", 3, subject=one.msisdn, at=END - SECOND)
            for number, one in enumerate(crowd)
        ]
        return send(node, *batch, now=now).tally.accepted

    assert at_once(8, act)[3:] == [5] * 5
    assert not Bucket.objects.filter(closed_at=None).exists()
    assert proof.verify() == []


def test_replaying_from_four_places_at_once_counts_once(node: Node, bare: Subscriber) -> None:
    send(node, *(event(f"e{number}", 1, subject="+8613900000009") for number in range(10)))
    lifecycle.change_number(
        subscriber_id=bare.pk, msisdn="+8613900000009", actor="c", reason="r", now=NOON - HOUR
    )
    ids = list(QuarantinedEvent.objects.values_list("id", flat=True))

    def act(_index: int) -> int:
        try:
            [result] = quarantine.replay(quarantined_ids=ids, actor="c", now=NOON)
        except quarantine.ReplayRefused:
            return 0
        return result.tally.accepted

    assert sum(at_once(4, act)) == 10
    assert UsageEvent.objects.count() == 10
    assert not QuarantinedEvent.objects.filter(state="open").exists()
    assert proof.verify() == []


def test_sweeps_at_once_write_one_change(crowd: list[Subscriber]) -> None:
    at_once(4, lambda _index: enforcement.sweep(now=END))
    assert BlockChange.objects.count() == 5
    assert set(ChargingProfile.objects.values_list("blocked", flat=True)) == {"quota_exhausted"}


def test_partitions_are_made_once_by_many_while_usage_goes_on(node: Node, month: Bucket) -> None:
    def act(index: int) -> list[str]:
        if index < 3:
            return partitions.make_ahead(now=NOON, days_back=1)
        for round in range(5):
            send(node, event(f"{index}-{round}", 1))
        return []

    made: list[str] = []
    try:
        made += [name for part in at_once(6, act) for name in part]
        assert len(made) == len(set(made)) == 16 + 5
        assert left(month) == 1_000_000 - 15_000
        assert proof.verify() == []
    finally:  # partitions outlive the emptying of the tables after a test
        with connection.cursor() as cursor:
            for name in made:
                cursor.execute(f"DROP TABLE {name}")


def test_a_poller_of_the_feed_misses_no_change(node: Node, crowd: list[Subscriber]) -> None:
    """Eight writers block and unblock while one polls: what it has seen is all there is."""
    done = Event()
    seen: list[int] = []

    def poll() -> None:
        try:
            cursor = 0
            while True:
                last_round = done.is_set()
                page = enforcement.changes_after(cursor=cursor, limit=7)
                seen.extend(change.pk for change in page.changes)
                cursor = page.cursor
                if last_round and not page.changes:
                    return
                time.sleep(0.001)
        finally:
            connection.close()

    def write(index: int) -> None:
        one = crowd[index % 5]
        for round in range(12):
            send(node, event(f"{index}-{round}", 500, subject=one.msisdn))
            give(one, 1, kind="pack", key=f"{index}-{round}", now=NOON)

    with ThreadPoolExecutor(1) as pool:
        poller = pool.submit(poll)
        at_once(8, write)
        done.set()
        poller.result(timeout=30)
    stored = list(BlockChange.objects.order_by("id").values_list("id", flat=True))
    assert seen == stored
    assert len(stored) > 50
    newest = {change.msisdn: change.reason for change in BlockChange.objects.order_by("id")}
    by_number = ChargingProfile.objects.values_list("subscriber__msisdn", "blocked")
    assert all(newest.get(msisdn, "") == blocked for msisdn, blocked in by_number)
