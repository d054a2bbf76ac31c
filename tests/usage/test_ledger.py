"""The ledger's verbs: grant and close."""

from datetime import timedelta

import pytest

from accounts.models import Subscriber
from config.errors import DomainError
from usage import ledger, proof
from usage.ledger import GrantReused
from usage.locking import UnknownSubscriber
from usage.models import Bucket, LedgerEntry, Node

from .conftest import END, HOUR, INSTANT, NOON, SECOND, START, counts, event, give, left, send
from .test_database_rules import entry, sql

GRACE = END + HOUR  # when November's buckets close


def entries(bucket: Bucket) -> list[tuple[str, int]]:
    rows = LedgerEntry.objects.filter(bucket_id=bucket.pk).order_by("id")
    return list(rows.values_list("kind", "amount_mt"))


# --- grant


def test_a_grant_is_made_once_per_key(subscriber: Subscriber) -> None:
    grant = {
        "subscriber_id": subscriber.pk, "kind": "pack", "name": "p", "name_en": "p",
        "amount_mt": 5000, "valid_from": START, "valid_until": END, "key": "k", "now": NOON,
    }  # fmt: skip
    first, new = ledger.grant(**grant)  # type: ignore[arg-type]
    again, repeated = ledger.grant(**grant)  # type: ignore[arg-type]
    assert (new, repeated, again.pk) == (True, False, first.pk)
    assert entries(first) == [("grant", 5000)]
    for change in ({"amount_mt": 6000}, {"subscriber_id": subscriber.pk + 1}):
        with pytest.raises((GrantReused, UnknownSubscriber)):
            ledger.grant(**grant | change)  # type: ignore[arg-type]
    assert entries(first) == [("grant", 5000)]


def test_a_grants_key_is_not_anothers(subscriber: Subscriber, neighbour: Subscriber) -> None:
    give(subscriber, 5, key="k")
    with pytest.raises(GrantReused):
        give(neighbour, 5, key="k")


@pytest.mark.parametrize("mt", [0, -1])
def test_a_grant_is_above_zero(subscriber: Subscriber, mt: int) -> None:
    with pytest.raises(DomainError, match="above zero"):
        ledger.grant(
            subscriber_id=subscriber.pk, kind="pack", name="p", name_en="p", amount_mt=mt,
            valid_from=START, valid_until=END, key="k", now=NOON,
        )  # fmt: skip
    assert not Bucket.objects.filter(key="k").exists()


def test_a_debit_under_one_identity_happens_once(node: Node, bare: Subscriber) -> None:
    bucket = give(bare, 200)  # idem-01
    send(node, event("k", 50))
    send(node, event("k", 50))
    assert left(bucket) == 150_000


# --- close


def test_a_bucket_closes_exactly_at_the_end_of_its_grace(month: Bucket) -> None:
    assert ledger.close_due_buckets(now=GRACE - INSTANT) == 0
    assert left(month) == 1_000_000
    assert ledger.close_due_buckets(now=GRACE) == 1
    month.refresh_from_db()
    assert (month.remaining_mt, month.closed_at) == (0, GRACE)
    assert entries(month) == [("grant", 1_000_000), ("expiry", -1_000_000)]
    assert ledger.close_due_buckets(now=GRACE) == 0
    assert proof.verify() == []


def test_an_empty_bucket_closes_without_an_entry(node: Node, month: Bucket) -> None:
    send(node, event("e1", 1000))
    assert ledger.close_due_buckets(now=GRACE) == 1
    assert entries(month) == [("grant", 1_000_000), ("debit", -1_000_000)]


def test_a_bucket_that_a_session_holds_stays_open(month: Bucket) -> None:
    sql("UPDATE usage_bucket SET reserved_mt = 40000")  # BAL-11, its second case
    assert ledger.close_due_buckets(now=GRACE) == 0
    assert left(month) == 1_000_000
    sql("UPDATE usage_bucket SET reserved_mt = 0")
    assert ledger.close_due_buckets(now=GRACE) == 1  # and its first


def test_closing_goes_on_where_its_limit_stopped(subscriber: Subscriber) -> None:
    for _number in range(4):
        give(subscriber, 1)
    assert [ledger.close_due_buckets(now=GRACE, limit=2) for _round in range(4)] == [2, 2, 1, 0]


def test_a_bucket_granted_for_the_past_waits_for_its_usage(node: Node, bare: Subscriber) -> None:
    now = END + timedelta(days=3)
    bucket = give(bare, 10, now=now)
    assert ledger.close_due_buckets(now=now + HOUR - INSTANT) == 0
    assert counts(send(node, event("e1", 4, at=END - SECOND), now=now + SECOND)) == (1, 0, 0, 0)
    assert left(bucket) == 6000
    assert ledger.close_due_buckets(now=now + HOUR) == 1


def test_what_expires_is_breakage_of_its_own_bucket(node: Node, bare: Subscriber) -> None:
    start = NOON - HOUR  # life-09
    a = give(bare, 10, start=start, end=start + 10 * HOUR)
    b = give(bare, 15, start=start, end=start + 15 * HOUR)
    send(node, event("e1", 15))
    ledger.close_due_buckets(now=start + 16 * HOUR)
    assert entries(a) == [("grant", 10_000), ("debit", -10_000)]
    assert entries(b) == [("grant", 15_000), ("debit", -5000), ("expiry", -10_000)]
    assert proof.verify() == []


def test_what_was_voided_pays_no_more(node: Node, bare: Subscriber) -> None:
    minute = timedelta(minutes=1)  # life-02
    bucket = give(bare, 100)
    send(node, event("e1", 50, at=NOON - minute), now=NOON - minute)
    entry(bucket, "void", -50_000, at=NOON)
    late = send(node, event("e2", 50, at=NOON + minute), now=NOON + minute)
    assert left(bucket) == 0
    assert (late.tally.debited_mt, late.tally.uncovered_mt) == (0, 50_000)
    assert proof.verify() == []
