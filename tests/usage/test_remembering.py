"""What a process remembers of buckets is what the database holds, or it is not used."""

import json
import random
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.models import Account, Subscriber
from usage import (
    corrections,
    enforcement,
    ledger,
    locking,
    movements,
    pools,
    proof,
    quota,
    remembering,
)
from usage import ingest as ingest_module
from usage.arriving import Delivery
from usage.batches import BatchResult
from usage.ingest import count_all, portion_of
from usage.ledger import Grant
from usage.models import Bucket, ChargingProfile, Node, UsageEvent
from usage.normalising import Counts
from usage.quota import Ask
from usage.remembering import Memory

from .conftest import END, HOUR, NOON, START, counts, event, give, left, make_subscriber, send
from .memories import remembered_rightly
from .test_concurrency import at_once

pytestmark = pytest.mark.django_db(transaction=True)
LATER = END + 2 * HOUR


@pytest.fixture
def memory() -> Memory:
    return Memory()


def report(node: Node, memory: Memory, *events: dict[str, Any], now: Any = NOON) -> BatchResult:
    raw = [json.dumps(one).encode() for one in events]
    [portion] = count_all([portion_of(Delivery(node, raw), now=now)], now=now, memory=memory)
    return portion.counted()


def learn(node: Node, memory: Memory, *subscribers: Subscriber, name: str = "learn") -> None:
    """Charge each twice: from then on they are remembered."""
    for turn in range(2):
        events = [
            event(f"{name}{one.pk}-{turn}", 1, subject=str(one.msisdn)) for one in subscribers
        ]
        report(node, memory, *events)
    assert all(remembered(memory, one) for one in subscribers)


def remembered(memory: Memory, subscriber: Subscriber) -> bool:
    """Whether the memory holds buckets of a subscriber, and would use them."""
    profile = ChargingProfile.objects.get(pk=subscriber.pk)
    held = isinstance(memory._kept.get(subscriber.pk), list)
    return held and profile.remembered_by == memory._process != 0


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The owners whose open buckets were read."""
    owners: list[int] = []
    honest = locking._open_buckets

    def look(cursor: Any, statement: str, ids: Any) -> Any:
        owners.extend(ids)
        return honest(cursor, statement, ids)

    monkeypatch.setattr(locking, "_open_buckets", look)
    return owners


def test_who_is_charged_for_the_third_time_is_not_read_again(
    node: Node, memory: Memory, subscriber: Subscriber, month: Bucket, read: list[int]
) -> None:
    for turn in range(5):
        assert counts(report(node, memory, event(f"e{turn}", 10))) == (1, 0, 0, 0)
        assert left(month) == 1_000_000 - (turn + 1) * 10_000
        remembered_rightly(memory)
    assert read == [subscriber.pk] * 2
    assert remembered(memory, subscriber)
    assert proof.verify() == []


def test_who_runs_dry_by_what_is_remembered_is_blocked_and_owes_the_rest(
    node: Node, memory: Memory, subscriber: Subscriber, month: Bucket
) -> None:
    learn(node, memory, subscriber)
    result = report(node, memory, event("much", 1100))
    assert result.exhausted == [(str(subscriber.msisdn), "quota_exhausted")]
    assert (result.tally.debited_mt, result.tally.uncovered_mt) == (998_000, 102_000)
    give(subscriber, 50)
    assert report(node, memory, event("more", 60)).tally.uncovered_mt == 10_000
    remembered_rightly(memory)
    assert proof.verify() == []


def test_that_there_is_nothing_is_remembered_until_something_is_granted(
    node: Node, memory: Memory, bare: Subscriber, read: list[int]
) -> None:
    learn(node, memory, bare)
    read.clear()
    assert report(node, memory, event("e1", 5)).tally.uncovered_mt == 5000
    assert read == []
    give(bare, 10)
    assert report(node, memory, event("e2", 5)).tally.debited_mt == 5000


def ask(sequence: int, *, requested: int, events: Iterable[dict[str, Any]] = ()) -> Ask:
    raw = [json.dumps(one).encode() for one in events]
    return Ask(sequence, sha256(b"%d" % sequence).digest(), requested, raw)


def reserve(node: Node, subscriber: Subscriber) -> str:
    answer = quota.create(
        node=node, name="s", subject=str(subscriber.msisdn), model="plain",
        ask=ask(0, requested=100), notify_url="", now=NOON,
    )  # fmt: skip
    return str(answer.body["ref"])


ABOUT: dict[str, Any] = {"key": "k", "actor": "clerk", "reason": "r", "now": NOON}


def sql(statement: str) -> Callable[[Node, Subscriber, Bucket], object]:
    def run(_node: Node, _subscriber: Subscriber, month: Bucket) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, {"id": month.pk, "owner": month.subscriber_id})

    return run


def start_and(
    end: Callable[[Node, str], object],
) -> Callable[[Node, Subscriber, Bucket], object]:
    return lambda node, subscriber, _month: end(node, reserve(node, subscriber))


MOVES: dict[str, Callable[[Node, Subscriber, Bucket], object]] = {
    "grant": lambda node, one, month: give(one, 10, end=NOON + HOUR),
    "adjustment up": lambda node, one, month: movements.adjust(
        bucket_id=month.pk, amount_mt=5000, **ABOUT
    ),
    "adjustment down": lambda node, one, month: movements.adjust(
        bucket_id=month.pk, amount_mt=-5000, **ABOUT
    ),
    "void": lambda node, one, month: movements.void_bucket(bucket_id=month.pk, **ABOUT),
    "report by another process": lambda node, one, month: send(node, event("other", 7)),
    "report by one that remembers too": lambda node, one, month: learn(
        node, Memory(), one, name="x"
    ),
    "voided event": lambda node, one, month: corrections.void(
        event_id=UsageEvent.objects.get(event_id=f"learn{one.pk}-1").pk, **ABOUT
    ),
    "event amended to more": lambda node, one, month: corrections.amend(
        event_id=UsageEvent.objects.get(event_id=f"learn{one.pk}-1").pk,
        counts=Counts(5, 0, 0, 0), **ABOUT,
    ),
    "reservation": lambda node, one, month: reserve(node, one),
    "release": start_and(
        lambda node, ref: quota.release(node=node, ref=ref, ask=ask(1, requested=0), now=NOON)
    ),
    "release with usage": start_and(
        lambda node, ref: quota.release(
            node=node, ref=ref, ask=ask(1, requested=0, events=[event("q", 3)]), now=NOON
        )
    ),
    "new priority": sql("UPDATE usage_bucket SET priority = 5 WHERE id = %(id)s"),
    "new end": sql("UPDATE usage_bucket SET valid_until = now() WHERE id = %(id)s"),
    "new start": sql("UPDATE usage_bucket SET valid_from = valid_until - interval '1 s' "
                     "WHERE id = %(id)s"),
    "new models": sql("UPDATE usage_bucket SET model_ids = '{1}' WHERE id = %(id)s"),
    "new hours": sql("UPDATE usage_bucket SET minute_until = 9 WHERE id = %(id)s"),
    "adjustment by hand": sql(
        "INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at) "
        "VALUES (%(id)s, %(owner)s, 'adjustment', 1, now())"
    ),
}  # fmt: skip


@pytest.mark.parametrize("move", MOVES)
def test_whatever_moves_or_changes_a_bucket_makes_it_forgotten(
    node: Node, memory: Memory, subscriber: Subscriber, month: Bucket, move: str, read: list[int]
) -> None:
    learn(node, memory, subscriber)
    MOVES[move](node, subscriber, month)
    assert not remembered(memory, subscriber)
    read.clear()
    report(node, memory, event("next", 3))
    assert read == [subscriber.pk]
    assert proof.verify() == []


def test_a_bucket_that_is_closed_is_forgotten(
    node: Node, memory: Memory, subscriber: Subscriber, month: Bucket
) -> None:
    learn(node, memory, subscriber)
    assert ledger.close_due_buckets(now=LATER) == 1
    assert not remembered(memory, subscriber)
    assert report(node, memory, event("late", 3), now=LATER).tally.uncovered_mt == 3000
    assert proof.verify() == []


def test_an_empty_one_that_is_closed_is_forgotten_too(
    node: Node, memory: Memory, subscriber: Subscriber, month: Bucket
) -> None:
    """Nothing expires of it, but what was used in its time comes late from then on."""
    give(subscriber, 10, start=END, end=LATER + HOUR)
    learn(node, memory, subscriber)
    report(node, memory, event("all", 998))
    assert ledger.close_due_buckets(now=LATER) == 1
    assert report(node, memory, event("late", 3), now=LATER).tally.debited_mt == 3000
    assert UsageEvent.objects.get(event_id="late").late


def test_both_sides_of_a_transfer_are_forgotten(
    node: Node, memory: Memory, subscriber: Subscriber, neighbour: Subscriber, month: Bucket
) -> None:
    learn(node, memory, subscriber, neighbour)
    movements.transfer(bucket_id=month.pk, to_subscriber_id=neighbour.pk, amount_mt=5000, **ABOUT)
    assert not remembered(memory, subscriber)
    assert not remembered(memory, neighbour)


def test_a_pool_is_read_every_time(
    node: Node, memory: Memory, bare: Subscriber, account: Account, read: list[int]
) -> None:
    pool = pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)
    pools.join(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=START)

    def grant(tokens: int, key: str) -> None:
        wanted = Grant(
            pool_id=pool.pk, kind="plan", name="包", name_en="plan", amount_mt=tokens * 1000,
            valid_from=START, valid_until=END, key=key,
        )  # fmt: skip
        pools.grant_to_pool(wanted=wanted, now=START)

    grant(10, "p1")
    learn(node, memory, bare)
    read.clear()
    assert report(node, memory, event("e1", 10)).tally.debited_mt == 8000
    assert read == [pool.pk]
    assert remembered(memory, bare)
    grant(10, "p2")
    assert report(node, memory, event("e2", 10)).tally.debited_mt == 10_000
    assert proof.verify() == []


def test_what_was_not_committed_is_not_remembered(
    node: Node,
    memory: Memory,
    subscriber: Subscriber,
    month: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn(node, memory, subscriber)

    def fail(*_arguments: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(ingest_module, "write_events", fail)
        with pytest.raises(ZeroDivisionError):
            report(node, memory, event("lost", 100))
    assert left(month) == 998_000
    assert counts(report(node, memory, event("lost", 100))) == (1, 0, 0, 0)
    assert left(month) == 898_000
    remembered_rightly(memory)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        report(node, memory, event("rolled back", 100))
        raise ZeroDivisionError
    assert report(node, memory, event("e", 898)).tally.debited_mt == 898_000
    assert proof.verify() == []


def test_nor_is_what_was_computed_when_the_commit_fails(
    node: Node,
    memory: Memory,
    subscriber: Subscriber,
    month: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn(node, memory, subscriber)
    honest, lost = enforcement.block, list[bool]()

    def lose_the_connection(*arguments: Any, **named: Any) -> None:
        honest(*arguments, **named)  # the last step before the commit
        if not lost:
            connection.connection.close()
            lost.append(True)

    monkeypatch.setattr(ingest_module, "block", lose_the_connection)
    assert counts(report(node, memory, event("e", 100))) == (1, 0, 0, 0)
    assert (lost, left(month)) == ([True], 898_000)
    assert remembered_rightly(memory) == 1
    assert proof.verify() == []


def test_after_a_failover_all_is_forgotten(
    node: Node,
    memory: Memory,
    subscriber: Subscriber,
    month: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn(node, memory, subscriber)
    process = memory._process
    # A standby that took over before it had heard of the last debits.
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE usage_bucket SET remaining_mt = 5000 WHERE id = %s", [month.pk])
        cursor.execute("SET session_replication_role = DEFAULT")
    monkeypatch.setattr(remembering, "SERVER", "SELECT pg_postmaster_start_time() + interval '1 s'")
    assert report(node, memory, event("e", 10)).tally.uncovered_mt == 5000
    assert memory._process != process
    remembered_rightly(memory)


# A dump that was made before, put back into the same server while processes go on.
RESTORE = """
    SET LOCAL session_replication_role = replica;
    CREATE TEMP TABLE kept_buckets ON COMMIT DROP AS TABLE usage_bucket;
    CREATE TEMP TABLE kept_profiles ON COMMIT DROP AS TABLE usage_chargingprofile;
    UPDATE kept_buckets SET remaining_mt = 5000;
    TRUNCATE usage_bucket, usage_chargingprofile CASCADE;
    INSERT INTO usage_bucket SELECT * FROM kept_buckets;
    INSERT INTO usage_chargingprofile SELECT * FROM kept_profiles;
"""


def test_after_a_restore_in_place_all_is_forgotten(
    node: Node, memory: Memory, subscriber: Subscriber, month: Bucket
) -> None:
    learn(node, memory, subscriber)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(RESTORE)
    assert report(node, memory, event("e", 10)).tally.uncovered_mt == 5000
    remembered_rightly(memory)


def test_several_processes_and_threads_stay_true(node: Node, account: Account) -> None:
    people = [make_subscriber(account, f"+86139000004{number:02}") for number in range(12)]
    for one in people:
        give(one, 400)
        give(one, 300, kind="promotion")
    memories = [Memory(), Memory()]

    def act(index: int) -> None:
        dice = random.Random(index)
        for turn in range(40):
            some = dice.sample(people, 4)
            events = [
                event(f"e{index}-{turn}-{place}", 3, subject=str(one.msisdn))
                for place, one in enumerate([*some, *some[:2]])
            ]
            # Mostly each pair of threads has its own people, as lanes would have it.
            report(node, memories[index % 2 if dice.random() < 0.8 else 1 - index % 2], *events)
            if dice.random() < 0.1:
                give(some[0], 1, key=f"more{index}-{turn}")
            if dice.random() < 0.05:
                send(node, event(f"s{index}-{turn}", 1, subject=str(some[1].msisdn)))

    at_once(4, act)
    for memory in memories:
        remembered_rightly(memory)
    assert any(remembered(memories[0], one) or remembered(memories[1], one) for one in people)
    assert UsageEvent.objects.filter(event_id__startswith="e").count() == 4 * 40 * 6
    assert proof.verify() == []
