"""The proof finds each kind of damage and says where; what is sound passes."""

import json
from datetime import date
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from accounts.models import Subscriber
from usage import partitions, profiles, proof
from usage.models import Bucket, Node

from .conftest import END, INSTANT, NOON, START, counts, event, give, send
from .test_database_rules import CHECK, refused

NOVEMBER = {"start": date(2026, 11, 1), "end": date(2026, 12, 1)}


def damage(*statements: str) -> None:
    """Change rows as nobody can: with every trigger off, for this transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("SET LOCAL session_replication_role = origin")


@pytest.fixture
def lived(node: Node, subscriber: Subscriber) -> Subscriber:
    """Two batches with every outcome in them, in buckets and beyond."""
    profiles.set_terms(
        subscriber_id=subscriber.pk, beyond="payg", payg_fen_per_million=400,
        payg_cap_mt=300_000, now=NOON,
    )  # fmt: skip
    send(node, event("e1", 900), event("e1", 900), event("e1", 7), event("x", 1, subject="+0"))
    send(node, event("e2", 500, at=NOON - INSTANT))
    assert proof.verify() == []
    assert proof.period_totals(**NOVEMBER)[1] == []
    return subscriber


DAMAGE = {
    "bucket remaining = sum of its ledger": (
        "UPDATE usage_bucket SET granted_mt = granted_mt + 1, remaining_mt = remaining_mt + 1",
    ),
    "ledger entries name a bucket": (
        "INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at) "
        "VALUES (99, 1, 'adjustment', 5, now())",
    ),
    "0 <= reserved <= remaining <= granted + adjusted": (
        "ALTER TABLE usage_bucket DROP CONSTRAINT bucket_remaining_within_granted",
        "UPDATE usage_bucket SET granted_mt = remaining_mt - 1",
    ),
    "a void bucket is empty": (
        "UPDATE usage_bucket SET granted_mt = granted_mt + 1, remaining_mt = remaining_mt + 1",
        "INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at) "
        "SELECT id, subscriber_id, 'grant', 1, now() FROM usage_bucket",
        "INSERT INTO usage_movement (kind, key, bucket_id, amount_mt, before_mt, after_mt, actor, "
        "reason, at) SELECT 'void', 'v', id, 0, 0, 0, 'x', 'x', now() FROM usage_bucket",
    ),
    "batch = its events and what paid for them": (
        "UPDATE usage_usageevent SET batch_id = batch_id + 1 WHERE event_id = 'e1'",
    ),
    "day of use = its events": (
        "UPDATE usage_usageevent SET occurred_at = occurred_at + interval '1 day' "
        "WHERE event_id = 'e1'",
    ),
    "batch debits = its ledger entries, refunds taken off": (
        "UPDATE usage_ledgerentry SET event_id = event_id + 16384 WHERE kind = 'debit'",
    ),
    "batch overage = its overage rows": (
        "UPDATE usage_overage SET batch_id = batch_id + 1",
    ),
    "batch = its tallies": (
        "UPDATE usage_usagetally SET received = received + 1, rejected = rejected + 1",
    ),
    "refused and conflicting events are in quarantine": (
        "DELETE FROM usage_quarantinedevent WHERE code = 'conflict'",
    ),
    "cycle totals = overage rows": (
        "UPDATE usage_cycleoverage SET priced_mt = priced_mt - 1, uncovered_mt = uncovered_mt + 1",
    ),
    "an amended event has no less than nothing, a voided one nothing": (
        "INSERT INTO usage_amendment (id, batch_id, event_id, subscriber_id, model_id, weight_id, "
        "kind, occurred_at, recorded_at, input_tokens, cached_tokens, output_tokens, "
        "reasoning_tokens, mt, actor, reason, key) SELECT 1, 0, id, subscriber_id, "
        "model_id, weight_id, 'void', occurred_at, now(), 0, 0, 0, 0, 0, 'x', 'x', 'x' "
        "FROM usage_usageevent WHERE event_id = 'e1'",
    ),
    "pool usage of a member = its debits of the pool's buckets": (
        "INSERT INTO usage_poolusage (pool_id, subscriber_id, day, mt) VALUES (1, 1, now(), 5)",
    ),
    "usage counted for limits = events and amendments of the day": (
        "INSERT INTO usage_limitusage (subscriber_id, api_key_id, day, mt) VALUES (1, 0, now(), 5)",
    ),
    "what rolled over = what was granted for it": (
        "UPDATE usage_bucket SET key = 'rollover:0'",
    ),
    "bucket reserved = what open sessions hold": (
        "INSERT INTO usage_quotasession (ref, node_id, session, subject, model, state, sequence, "
        "granted_mt, hold_bucket_ids, hold_mts, hold_payg_mt, notify_url, created_at, "
        "supervised_until) SELECT 'qs_x', 1, 's', '+1', 'plain', 'open', 0, 5, ARRAY[id], "
        "ARRAY[5], 0, '', now(), now() FROM usage_bucket LIMIT 1",
    ),
    "reserved pay-as-you-go = what open sessions hold": (
        "UPDATE usage_chargingprofile SET reserved_payg_mt = 1",
    ),
}  # fmt: skip


def test_every_rule_has_its_damage() -> None:
    assert set(DAMAGE) == set(proof.RULES)


@pytest.mark.parametrize("rule", list(DAMAGE))
def test_a_damage_is_found_by_the_rule_it_breaks(lived: Subscriber, rule: str) -> None:
    damage(*DAMAGE[rule])
    found = proof.verify()
    assert {one.rule for one in found} == {rule}
    assert all(one.where.split()[-1] for one in found)


INTO_ONE_PARTITION = (
    "INSERT INTO usage_ledgerentry_202611 (bucket_id, subscriber_id, kind, amount_mt, recorded_at) "
    "SELECT id, subscriber_id, 'adjustment', 5, '2026-11-24' FROM usage_bucket"
)


def put_into_one_partition() -> None:
    with connection.cursor() as cursor:
        cursor.execute(INTO_ONE_PARTITION)


@pytest.fixture
def parted(lived: Subscriber) -> Subscriber:
    """The same with the month's partition made, into which the entries moved."""
    partitions.make_ahead(now=NOON, days_back=1)
    assert proof.verify() == []
    return lived


def test_a_row_put_straight_into_a_partition_moves_its_bucket(parted: Subscriber) -> None:
    before = Bucket.objects.get().remaining_mt
    put_into_one_partition()
    assert Bucket.objects.get().remaining_mt == before + 5
    assert proof.verify() == []


def test_a_row_put_into_a_partition_past_its_trigger_is_found(parted: Subscriber) -> None:
    bucket = Bucket.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("DROP TRIGGER ledger_moves_balances ON usage_ledgerentry_202611")
    put_into_one_partition()
    [found] = proof.verify()
    assert found.rule == "bucket remaining = sum of its ledger"
    assert (found.where, found.expected - found.found) == (f"bucket {bucket.pk}", 5)


@pytest.mark.parametrize(
    ("statement", "total"),
    [
        ("UPDATE usage_usageevent SET mt = mt + 1", "accepted_mt"),
        ("DELETE FROM usage_usageevent", "accepted"),
        ("UPDATE usage_ledgerentry SET amount_mt = amount_mt + 1 WHERE kind='debit'", "debited_mt"),
        ("DELETE FROM usage_overage WHERE priced", "overage_mt"),
        ("UPDATE usage_overage SET mt = mt + 1 WHERE NOT priced", "uncovered_mt"),
    ],
)
def test_a_lost_or_changed_row_shows_in_its_period(
    lived: Subscriber, statement: str, total: str
) -> None:
    damage(statement)
    _totals, differences = proof.period_totals(**NOVEMBER)
    assert f"reported {total} = stored {total}" in {one.rule for one in differences}
    assert proof.verify() != []


def test_differences_name_what_is_expected_and_found(lived: Subscriber) -> None:
    bucket = Bucket.objects.get()
    damage("UPDATE usage_bucket SET granted_mt = granted_mt + 9, remaining_mt = remaining_mt + 9")
    [found] = proof.verify()
    assert (found.where, found.expected, found.found) == (f"bucket {bucket.pk}", 0, 9)


def test_at_most_so_many_differences_of_a_rule_are_listed(subscriber: Subscriber) -> None:
    for _number in range(4):
        give(subscriber, 1)
    damage("UPDATE usage_bucket SET granted_mt = granted_mt + 1, remaining_mt = remaining_mt + 1")
    assert len(proof.verify(most=3)) == 3


def test_a_period_counts_by_day_of_use_in_the_billing_zone(
    node: Node, subscriber: Subscriber
) -> None:
    batch = [
        event("oct", 1, at=START - INSTANT), event("first", 2, at=START),
        event("last", 4, at=END - INSTANT), event("dec", 8, at=END),
    ]  # fmt: skip
    send(node, *batch, now=END + INSTANT)
    assert proof.period_totals(**NOVEMBER)[0]["accepted_mt"] == 6000
    months = [(date(2026, 10, 1), 1000), (date(2026, 12, 1), 8000)]
    for start, mt in months:
        totals, differences = proof.period_totals(start=start, end=start.replace(day=2))
        assert differences == []
        if start.month == 12:
            assert totals["accepted_mt"] == mt
    assert proof.period_totals(start=date(2026, 10, 31), end=date(2026, 11, 1))[0][
        "accepted_mt"
    ] == 1000  # fmt: skip


def test_duplicates_and_refusals_count_on_the_day_they_name(
    node: Node, subscriber: Subscriber
) -> None:
    early = event("e1", 1, at=START)
    send(node, early, early, early | {"data": {"model": "heavy", "usage": {"prompt_tokens": 1}}})
    send(node, event("x", 1, subject="+0", at=START), event("y", 1) | {"time": "never"})
    totals, _ = proof.period_totals(start=date(2026, 11, 1), end=date(2026, 11, 2))
    names = ("received", "accepted", "duplicate", "conflict", "rejected")
    assert [totals[name] for name in names] == [4, 1, 1, 1, 1]
    totals, _ = proof.period_totals(start=date(2026, 11, 24), end=date(2026, 11, 25))
    assert [totals[name] for name in names] == [1, 0, 0, 0, 1]


def test_a_day_reconciles_to_the_token(node: Node, bare: Subscriber) -> None:
    give(bare, 900_000_000)  # RA-01
    profiles.set_terms(
        subscriber_id=bare.pk, beyond="payg", payg_fen_per_million=400,
        payg_cap_mt=98_000_000 * 1000, now=NOON,
    )  # fmt: skip
    sizes = [1_008_282] * 989 + [998_200_000 - 1_008_282 * 989]
    accepted = [event(f"e{number}", size) for number, size in enumerate(sizes)]
    rejected = [event(f"r{number}", 600_000, subject="+0") for number in range(3)]
    result = send(node, *accepted, *accepted[:7], *rejected)
    assert counts(result) == (990, 7, 0, 3)
    totals, differences = proof.period_totals(**NOVEMBER)
    assert differences == []
    assert totals == {
        "received": 1000, "duplicate": 7, "conflict": 0, "rejected": 3, "accepted": 990,
        "accepted_mt": 998_200_000_000, "debited_mt": 900_000_000_000,
        "overage_mt": 98_000_000_000, "uncovered_mt": 200_000_000,
    }  # fmt: skip


def test_the_command_proves_or_fails_with_the_differences(lived: Subscriber) -> None:
    out = StringIO()
    call_command("verify_ledger", stdout=out)
    damage("DELETE FROM usage_overage")
    with pytest.raises(SystemExit) as ended:
        call_command("verify_ledger", stdout=out, stderr=out)
    assert ended.value.code == 1
    assert "cycle totals = overage rows" in out.getvalue()
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("verify_ledger", "--json", stdout=out)
    assert json.loads(out.getvalue())


@pytest.mark.parametrize("table", ["usage_usagebatch", "usage_usagetally"])
@pytest.mark.parametrize("column", ["received", "accepted_mt"])
def test_the_database_holds_a_batch_to_add_up(lived: Subscriber, table: str, column: str) -> None:
    with refused(CHECK):
        damage(f"UPDATE {table} SET {column} = {column} + 1")  # noqa: S608
