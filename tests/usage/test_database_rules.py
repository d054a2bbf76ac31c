"""Raw SQL against every rule that the database keeps by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from accounts.models import Subscriber
from config.dberrors import sqlstate
from usage import ledger, profiles
from usage.models import BlockChange, Bucket, Node, Overage

from .conftest import NOON, START, event, give, left, send

RESTRICTED, FOREIGN_KEY, CHECK, UNIQUE = "23001", "23503", "23514", "23505"


def sql(statement: str, **values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


@contextmanager
def refused(*states: str) -> Iterator[None]:
    """The database refuses with this SQLSTATE, or one of these."""
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        yield
    assert sqlstate(caught.value) in states, caught.value


def entry(bucket: Bucket, kind: str, mt: int, at: datetime = NOON) -> None:
    """A raw ledger entry, past all verbs."""
    with connection.cursor() as cursor:
        cursor.execute(
            ledger.ADD_ENTRY,
            {
                "bucket_id": bucket.pk, "subscriber_id": bucket.subscriber_id, "kind": kind,
                "amount_mt": mt, "now": at, "actor": "", "reason": "",
            },
        )  # fmt: skip


FACTS = {
    "usage_ledgerentry": "reason",
    "usage_usageevent": "mt",
    "usage_usagebatch": "received",
    "usage_usagetally": "received",
    "usage_blockchange": "reason",
}


@pytest.mark.parametrize("table", list(FACTS))
def test_a_fact_is_neither_changed_nor_deleted(
    table: str, node: Node, subscriber: Subscriber
) -> None:
    send(node, event("e1", 1000))
    assert BlockChange.objects.exists()
    with refused(RESTRICTED):
        sql(f"UPDATE {table} SET {FACTS[table]} = {FACTS[table]}")  # noqa: S608
    with refused(RESTRICTED):
        sql(f"DELETE FROM {table}")  # noqa: S608


def test_a_fact_is_not_changed_inside_its_partition_either(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("e1", 1))
    for table in ("usage_ledgerentry_default", "usage_usageevent_default"):
        with refused(RESTRICTED):
            sql(f"DELETE FROM {table}")  # noqa: S608


@pytest.mark.parametrize("column", ["granted_mt", "adjusted_mt", "remaining_mt"])
@pytest.mark.parametrize("by", [-1, 1])
def test_an_amount_does_not_move_without_the_ledger(month: Bucket, column: str, by: int) -> None:
    with refused(RESTRICTED, CHECK):
        sql(f"UPDATE usage_bucket SET {column} = {column} + {by}")  # noqa: S608
    with refused(RESTRICTED, CHECK):
        Bucket.objects.filter(pk=month.pk).update(**{column: 1})


@pytest.mark.parametrize("change", ["granted_mt + 1", "adjusted_mt + 1", "remaining_mt - 1"])
def test_nor_where_all_amounts_would_still_fit(month: Bucket, change: str) -> None:
    with refused(RESTRICTED):
        sql(f"UPDATE usage_bucket SET {change.split()[0]} = {change}")  # noqa: S608


@pytest.mark.parametrize("column", ["granted_mt", "adjusted_mt", "remaining_mt", "reserved_mt"])
def test_a_bucket_is_not_born_full(month: Bucket, column: str) -> None:
    month.refresh_from_db()
    for name in ("granted_mt", "adjusted_mt", "remaining_mt", "reserved_mt"):
        setattr(month, name, 5 if name == column else 0)
    month.pk, month.key = None, "another"
    with refused(RESTRICTED):
        month.save(force_insert=True)


def test_a_bucket_is_not_deleted(month: Bucket) -> None:
    with refused(RESTRICTED):
        sql("DELETE FROM usage_bucket")


@pytest.mark.parametrize(
    ("kind", "mt"),
    [
        ("grant", -1), ("grant", 0), ("refund", -1), ("debit", 1), ("debit", 0), ("expiry", 1),
        ("rollover", 1), ("void", 1), ("adjustment", 0), ("gift", 1),
    ],
)  # fmt: skip
def test_the_sign_of_an_entry_fits_its_kind(month: Bucket, kind: str, mt: int) -> None:
    with refused(CHECK):
        entry(month, kind, mt)


def test_an_entry_names_a_bucket_that_exists(month: Bucket) -> None:
    month.pk += 1000
    with refused(FOREIGN_KEY):
        entry(month, "grant", 1)


def test_a_bucket_never_falls_below_zero(month: Bucket) -> None:
    with refused(CHECK):
        entry(month, "debit", -1_000_001)
    assert left(month) == 1_000_000


def test_nothing_comes_back_beyond_what_was_granted(month: Bucket) -> None:
    with refused(CHECK):
        entry(month, "refund", 1)
    entry(month, "debit", -1)
    entry(month, "refund", 1)
    assert left(month) == 1_000_000


def test_what_is_reserved_is_part_of_what_remains(month: Bucket) -> None:
    with refused(CHECK):
        sql("UPDATE usage_bucket SET reserved_mt = 1000001")
    with refused(CHECK):
        sql("UPDATE usage_bucket SET reserved_mt = -1")
    sql("UPDATE usage_bucket SET reserved_mt = 1000000")
    with refused(CHECK):
        entry(month, "debit", -1)


def test_a_closed_bucket_is_empty_and_stays_so(month: Bucket) -> None:
    with refused(CHECK):
        sql("UPDATE usage_bucket SET closed_at = now()")
    entry(month, "expiry", -1_000_000)
    sql("UPDATE usage_bucket SET closed_at = now()")
    for kind in ("grant", "refund", "adjustment"):
        with refused(CHECK):
            entry(month, kind, 1)


def test_a_bucket_has_a_period(subscriber: Subscriber) -> None:
    with refused(CHECK):
        give(subscriber, 1, start=NOON, end=NOON)


def test_an_overage_is_priced_or_uncovered_but_not_both(subscriber: Subscriber) -> None:
    row = {
        "event_id": 1, "batch_id": 1, "subscriber_id": subscriber.pk, "account_id": 1,
        "model_id": 1, "cycle": START.date(), "occurred_at": NOON, "recorded_at": NOON,
    }  # fmt: skip
    for mt, priced, price, line in (
        (0, True, 400, None),
        (1, True, 0, None),
        (1, False, 400, None),
        (1, False, 0, 7),
    ):
        with refused(CHECK):
            Overage.objects.create(
                **row, mt=mt, priced=priced, fen_per_million=price, invoice_line_id=line
            )


def test_of_an_overage_only_the_invoice_line_is_written_later(node: Node, bare: Subscriber) -> None:
    profiles.set_terms(
        subscriber_id=bare.pk, beyond="payg", payg_fen_per_million=400, payg_cap_mt=10**9, now=NOON
    )
    send(node, event("e1", 5))
    for change in ("mt = mt + 1", "fen_per_million = 1", "cycle = '2026-10-01'", "account_id = 0"):
        with refused(RESTRICTED):
            sql(f"UPDATE usage_overage SET {change}")  # noqa: S608
    with refused(RESTRICTED):
        sql("DELETE FROM usage_overage")
    assert Overage.objects.update(invoice_line_id=7) == 1
