"""A large batch does not wait for subscribers whom others hold: it counts the rest first."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from accounts.models import Account, Subscriber
from usage import ingest as ingest_module
from usage import pools, proof, quota
from usage.batches import BatchResult
from usage.identity import key_of
from usage.ledger import Grant
from usage.models import Node, Pool, UsageBatch, UsageEvent

from .conftest import END, NOON, SECOND, START, counts, event, give, make_subscriber, send
from .test_concurrency import at_once, closing

pytestmark = pytest.mark.django_db(transaction=True)
PEOPLE, EVENTS = 4, 240


@pytest.fixture
def crowd(account: Account) -> list[Subscriber]:
    """Four subscribers, each with 600 tokens: enough for 60 events of ten."""
    people = [make_subscriber(account, f"+861390000030{number}") for number in range(PEOPLE)]
    for one in people:
        give(one, 600)
    return people


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in a circle gives up in time and would try again unseen."""
    for room in ("usage.ingest", "usage.quota"):
        monkeypatch.setattr(f"{room}.retry_transaction", lambda fn: fn())


def batch_of(crowd: list[Subscriber], tokens: int = 10) -> list[dict[str, Any]]:
    return [
        event(f"e{number}", tokens, subject=crowd[number % PEOPLE].msisdn)
        for number in range(EVENTS)
    ]


@contextmanager
def reported_while_held(
    statement: str, ids: Sequence[int | bytes], report: Callable[[], Any]
) -> Iterator[Future[Any]]:
    """Lock rows here while another thread reports; inside, that thread waits for them."""

    with ThreadPoolExecutor(1) as pool, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, [list(ids)])
        reported = pool.submit(closing(report))
        until_it_waits(reported, cursor)
        yield reported


def until_it_waits(reported: Future[Any], cursor: Any, *, waiting: int = 1) -> None:
    """Until so many other connections wait for a lock."""
    for _look in range(500):
        assert not reported.done(), reported.result()
        cursor.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.02)")
        cursor.execute(
            "SELECT COUNT(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if cursor.fetchone()[0] >= waiting:
            return
    raise AssertionError("nobody waited for the lock")


LOCK_PROFILES = """
    SELECT 1 FROM usage_chargingprofile WHERE subscriber_id = ANY(%s) FOR NO KEY UPDATE
"""
# The tables that those who wait for a lock have written to.
WRITTEN_BY_WHO_WAITS = """
    SELECT held.relation::regclass::text
      FROM pg_locks AS held JOIN pg_locks AS wanted ON wanted.pid = held.pid
     WHERE held.mode = 'RowExclusiveLock' AND held.relation IS NOT NULL AND NOT wanted.granted
"""
# The owners, or NULL for a pool's, of buckets that nobody is moving.
FREE_BUCKETS = "SELECT subscriber_id FROM usage_bucket FOR NO KEY UPDATE SKIP LOCKED"
LOCK_POOLS = "SELECT 1 FROM usage_pool WHERE id = ANY(%s) FOR NO KEY UPDATE"


def of(person: Subscriber) -> int:
    return UsageEvent.objects.filter(subscriber_id=person.pk).count()


def test_all_but_the_events_of_who_is_held_are_counted_before_the_wait(
    node: Node, crowd: list[Subscriber]
) -> None:
    held = crowd[1]
    with reported_while_held(
        LOCK_PROFILES, [held.pk], lambda: send(node, *batch_of(crowd), sequence=7)
    ) as reported:
        assert [of(one) for one in crowd] == [60, 0, 60, 60]
    result = reported.result(timeout=20)
    assert counts(result) == (EVENTS, 0, 0, 0)
    assert result.tally.received == EVENTS
    assert result.tally.debited_mt == EVENTS * 10_000
    assert of(held) == 60
    batches = UsageBatch.objects.order_by("id")
    assert [(one.sequence, one.accepted) for one in batches] == [(None, 180), (7, 60)]
    assert result.batch_id == batches[0].pk
    assert proof.verify() == []


def test_who_runs_dry_is_told_from_both_parts(node: Node, crowd: list[Subscriber]) -> None:
    with reported_while_held(
        LOCK_PROFILES, [crowd[0].pk], lambda: send(node, *batch_of(crowd, tokens=11))
    ) as reported:
        pass
    told = reported.result(timeout=20).exhausted
    assert told == sorted((str(one.msisdn), "quota_exhausted") for one in crowd)


def test_repeats_and_refusals_of_both_parts_stand_in_one_answer(
    node: Node, crowd: list[Subscriber]
) -> None:
    first = batch_of(crowd)
    send(node, first[0], first[1])
    again = [first[0], first[1], *first[4:], event("e0", 99, subject=str(crowd[0].msisdn))]
    again += [event("e1", 99, subject=str(crowd[1].msisdn)), event("x", 1, subject="+86130")]
    with reported_while_held(LOCK_PROFILES, [crowd[1].pk], lambda: send(node, *again)) as reported:
        pass
    result = reported.result(timeout=20)
    assert counts(result) == (EVENTS - 4, 2, 2, 1)
    assert result.tally.received == len(again)
    assert [one.code for one in result.refusals] == ["conflict", "conflict", "unknown_subscriber"]
    assert all(one.position < two.position for one, two in pairwise(result.refusals))
    assert proof.verify() == []


@pytest.fixture
def family(crowd: list[Subscriber]) -> Pool:
    """Two of the crowd and 50 tokens that they share."""
    pool = pools.create_pool(account_id=crowd[0].account_id, name="Wang", kind="family", now=START)
    for one in crowd[2:]:
        pools.join(pool_id=pool.pk, subscriber_id=one.pk, actor="clerk", now=START)
    wanted = Grant(
        pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=50_000, key="p",
        valid_from=START, valid_until=END,
    )  # fmt: skip
    pools.grant_to_pool(wanted=wanted, now=NOON)
    return pool


def test_a_batch_waits_for_a_pool_with_all_charged_but_its_members(
    node: Node, crowd: list[Subscriber], family: Pool
) -> None:
    """Whoever is after a large pool has only its members left to charge once it is its turn."""
    own_month_is_over = event("x", 1, subject=crowd[2].msisdn, at=START - SECOND)
    batch = [*batch_of(crowd, tokens=11), own_month_is_over]
    with reported_while_held(LOCK_POOLS, [family.pk], lambda: send(node, *batch)) as reported:
        with connection.cursor() as cursor:
            cursor.execute(WRITTEN_BY_WHO_WAITS)
            written = {name for (name,) in cursor}
            cursor.execute(FREE_BUCKETS)
            free = {owner for (owner,) in cursor}
            cursor.execute("SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert cursor.fetchone() == (0,)  # others may write what nodes are told meanwhile
        assert {"usage_eventkey", "usage_usageevent", "usage_ledgerentry"} <= written
        assert not {"usage_usagebatch", "usage_blockchange"} & written
        assert free == {None, *(one.pk for one in crowd[2:])}
    result = reported.result(timeout=20)
    assert sorted(subject for subject, _reason in result.exhausted) == sorted(
        str(one.msisdn) for one in crowd
    )
    assert counts(result) == (EVENTS + 1, 0, 0, 0)
    assert result.tally.debited_mt == 4 * 600_000 + 50_000
    assert UsageEvent.objects.count() == EVENTS + 1
    assert proof.verify() == []


def one_shot(node: Node, used: dict[str, Any]) -> bool:
    """Whether a one-shot debit of an event counted it."""
    ask = quota.Ask(sequence=0, digest=b"0" * 16, events=[json.dumps(used).encode()])
    about: dict[str, Any] = {"node": node, "name": "s", "model": "plain", "ask": ask, "now": NOON}
    told = quota.create(**about, subject=used["subject"], one_shot=True).body
    return (told["accepted"], told["conflict"]) == (1, 0)


def reported(node: Node, used: dict[str, Any]) -> bool:
    return counts(send(node, used)) == (1, 0, 0, 0)


@pytest.mark.parametrize("ways", [(reported, one_shot), (one_shot, reported)])
def test_who_holds_a_pool_waits_for_no_key(
    node: Node, crowd: list[Subscriber], family: Pool, no_retries: None, ways: tuple[Any, Any]
) -> None:
    """Else the one who has claimed the key would wait for the pool: a circle of two."""
    first, second = (
        partial(way, node, event("e", 10, subject=one.msisdn))
        for way, one in zip(ways, crowd[2:], strict=True)
    )
    with ThreadPoolExecutor(1) as threads:
        with reported_while_held(LOCK_POOLS, [family.pk], first) as one:
            other = threads.submit(closing(second))
            with connection.cursor() as cursor:
                until_it_waits(other, cursor, waiting=2)
        assert [one.result(timeout=20), other.result(timeout=20)] == [True, False]
    assert proof.verify() == []


CLAIM_KEY = """
    INSERT INTO usage_eventkey (key, content, day) VALUES ((%s::bytea[])[1], '', '2026-11-24')
"""


@pytest.mark.parametrize("names", [("e1", "e2", "e3"), ("e3", "e2", "e1")])
def test_who_waits_for_a_key_holds_none_that_comes_after_it(
    node: Node, crowd: list[Subscriber], no_retries: None, names: tuple[str, ...]
) -> None:
    """Of copies that name different people, no subscriber's lock puts the keys in line."""
    used = [event(name, 10, subject=crowd[0].msisdn) for name in names]
    _first, middle, last = sorted(key_of(one["source"], one["id"]) for one in used)
    with (
        reported_while_held(CLAIM_KEY, [middle], lambda: send(node, *used)) as reported,
        connection.cursor() as cursor,
    ):
        cursor.execute(CLAIM_KEY, [[last]])
        transaction.set_rollback(True)
    assert counts(reported.result(timeout=20)) == (3, 0, 0, 0)


def test_a_batch_waits_as_a_whole_when_most_are_held(node: Node, crowd: list[Subscriber]) -> None:
    held = [one.pk for one in crowd[:3]]
    with reported_while_held(LOCK_PROFILES, held, lambda: send(node, *batch_of(crowd))) as reported:
        assert not UsageEvent.objects.exists()
        # Waiting for the first, it has given back whom it had.
        with connection.cursor() as cursor:
            cursor.execute(f"{LOCK_PROFILES} NOWAIT", [[crowd[3].pk]])
    assert counts(reported.result(timeout=20)) == (EVENTS, 0, 0, 0)
    assert [one.accepted for one in UsageBatch.objects.all()] == [EVENTS]


def test_inside_of_a_transaction_a_batch_waits_as_a_whole(
    node: Node, crowd: list[Subscriber]
) -> None:
    def report() -> BatchResult:
        with transaction.atomic():
            return send(node, *batch_of(crowd))

    with reported_while_held(LOCK_PROFILES, [crowd[1].pk], report) as reported:
        pass
    assert counts(reported.result(timeout=20)) == (EVENTS, 0, 0, 0)
    assert [one.accepted for one in UsageBatch.objects.all()] == [EVENTS]


@pytest.mark.parametrize("events", [1, EVENTS])
def test_who_waits_for_a_subscriber_holds_no_key(
    node: Node, crowd: list[Subscriber], events: int, no_retries: None
) -> None:
    """Else the one waited for, who reports the same, would wait for us."""
    ours = batch_of(crowd[:1] * PEOPLE)[:events]
    with reported_while_held(LOCK_PROFILES, [crowd[0].pk], lambda: send(node, *ours)) as reported:
        assert counts(send(node, ours[0])) == (1, 0, 0, 0)
    assert counts(reported.result(timeout=20)) == (events - 1, 1, 0, 0)


def test_a_session_that_waits_for_its_subscriber_holds_no_key(
    node: Node, crowd: list[Subscriber], no_retries: None
) -> None:
    used = batch_of(crowd)[0]
    ask = quota.Ask(sequence=0, digest=b"0" * 16, events=[json.dumps(used).encode()])
    about: dict[str, Any] = {
        "node": node,
        "name": "s",
        "subject": str(crowd[0].msisdn),
        "model": "plain",
    }

    def create() -> Any:
        return quota.create(**about, ask=ask, now=NOON, one_shot=True)

    with reported_while_held(LOCK_PROFILES, [crowd[0].pk], create) as reported:
        assert counts(send(node, used)) == (1, 0, 0, 0)
    assert reported.result(timeout=20).body["duplicate"] == 1


def test_a_small_batch_waits(node: Node, crowd: list[Subscriber]) -> None:
    small = batch_of(crowd)[: ingest_module.LARGE_EVENTS - 1]
    with reported_while_held(LOCK_PROFILES, [crowd[1].pk], lambda: send(node, *small)) as reported:
        assert not UsageEvent.objects.exists()
    assert counts(reported.result(timeout=20)) == (len(small), 0, 0, 0)
    assert UsageBatch.objects.count() == 1


def test_after_a_crash_between_both_parts_the_same_report_counts_the_rest(
    node: Node, crowd: list[Subscriber], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ingest_module._count

    def dies_when_it_waits(*arguments: Any, waits: bool, **more: Any) -> Any:
        if waits:
            raise OperationalError("the process died here")
        return honest(*arguments, waits=waits, **more)

    held = crowd[2]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK_PROFILES, [[held.pk]])
        with monkeypatch.context() as patch:
            patch.setattr(ingest_module, "_count", dies_when_it_waits)
            with pytest.raises(OperationalError, match="died here"):
                at_once(1, lambda _index: send(node, *batch_of(crowd), sequence=7))
    assert [of(one) for one in crowd] == [60, 60, 0, 60]
    # The gap in the node's numbers stays open until all of the report is counted.
    assert not UsageBatch.objects.filter(sequence=7).exists()
    assert proof.verify() == []
    assert counts(send(node, *batch_of(crowd))) == (60, 180, 0, 0)
    assert proof.verify() == []


def test_large_batches_that_meet_count_every_event_once(
    node: Node, crowd: list[Subscriber]
) -> None:
    results = at_once(6, lambda _index: send(node, *batch_of(crowd)))
    assert sum(one.tally.accepted for one in results) == EVENTS
    assert sum(one.tally.duplicate for one in results) == 5 * EVENTS
    assert all(one.tally.received == EVENTS for one in results)
    assert [of(one) for one in crowd] == [60] * PEOPLE
    assert proof.verify() == []
