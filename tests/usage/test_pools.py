"""Pools: shared buckets, caps of members, payer and consumer, history, and many at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from accounts import keys, lifecycle
from accounts.models import Account, OutboxMessage, Subscriber
from usage import balances, enforcement, ledger, pools, profiles, proof
from usage.ledger import Grant, GrantReused
from usage.models import (
    UNCAPPED,
    Bucket,
    ChargingProfile,
    LedgerEntry,
    Node,
    Pool,
    PoolMember,
    PoolUsage,
    UsageEvent,
)
from usage.pools import MembershipRefused, UnknownPool

from .conftest import (
    BORN,
    END,
    HOUR,
    INSTANT,
    NOON,
    SECOND,
    START,
    at,
    client_of,
    counts,
    event,
    give,
    left,
    make_subscriber,
    send,
)  # fmt: skip

A, B = "+8613900000001", "+8613900000002"
DAY = timedelta(days=1)


@pytest.fixture
def pool(account: Account) -> Pool:
    return pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)


@pytest.fixture
def other(account: Account) -> Subscriber:
    return make_subscriber(account, B)


def fill(pool: Pool, tokens: int, *, key: str = "p", now: datetime = NOON, **more: Any) -> Bucket:
    terms: dict[str, Any] = {"valid_from": START, "valid_until": END} | more
    wanted = Grant(
        pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=tokens * 1000, key=key,
        **terms,
    )  # fmt: skip
    return pools.grant_to_pool(wanted=wanted, now=now)[0]


def join(pool: Pool, who: Subscriber, *, now: datetime = START, **caps: int) -> PoolMember:
    day, cycle = (caps[name] * 1000 if name in caps else UNCAPPED for name in ("day", "cycle"))
    return pools.join(
        pool_id=pool.pk, subscriber_id=who.pk, actor="clerk", now=now, cycle_cap_mt=cycle,
        day_cap_mt=day,
    )[0]  # fmt: skip


def debits(result: Any) -> tuple[int, int]:
    return result.tally.debited_mt // 1000, result.tally.uncovered_mt // 1000


def blocked(who: Subscriber) -> str:
    return ChargingProfile.objects.get(subscriber=who).blocked


def share(who: Subscriber) -> tuple[int, int]:
    """(own, from the pool) in millitokens, as the balance tells."""
    found = balances.balance(subscriber_id=who.pk, now=NOON)
    assert found.pool is not None
    return found.available_mt, found.pool.available_mt


def test_a_member_with_nothing_uses_the_pool_and_is_named_as_consumer(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    """BAL-06: the payer is the pool's account, whosever the member is."""
    company = lifecycle.open_account(kind="enterprise", name="Li", now=BORN)
    shared = pools.create_pool(account_id=company.pk, name="Li", kind="enterprise", now=START)
    bucket = fill(shared, 130)
    join(shared, bare)
    for number in range(6):
        assert debits(send(node, event(f"e{number}", 20))) == (20, 0)
    assert left(bucket) == 10_000
    entries = LedgerEntry.objects.filter(kind="debit")
    assert {(e.bucket_id, e.subscriber_id, e.amount_mt) for e in entries} == {
        (bucket.pk, bare.pk, -20_000)
    }
    assert entries.count() == 6
    assert bucket.pool is not None
    assert bucket.pool.account_id == company.pk
    assert proof.verify() == []


def test_own_tokens_go_first_unless_the_plan_says_otherwise(
    node: Node, month: Bucket, bare: Subscriber, pool: Pool
) -> None:
    shared = fill(pool, 50)
    join(pool, bare)
    send(node, event("e1", 10))
    assert (left(month), left(shared)) == (990_000, 50_000)
    profiles.set_terms(
        subscriber_id=bare.pk, beyond="stop", payg_fen_per_million=0, payg_cap_mt=0, now=NOON,
        pool_first=True,
    )  # fmt: skip
    send(node, event("e2", 60))
    assert (left(month), left(shared)) == (980_000, 0)


def test_caps_bound_the_cycle_and_the_day(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    fill(pool, 1000)
    join(pool, bare, cycle=100, day=40)
    join(pool, other)
    assert debits(send(node, event("e1", 50))) == (40, 10)
    tomorrow = NOON + DAY
    assert debits(send(node, event("e2", 50, at=tomorrow), now=tomorrow)) == (40, 10)
    later = NOON + 2 * DAY
    assert debits(send(node, event("e3", 50, at=later), now=later)) == (20, 30)
    assert blocked(bare) == "quota_exhausted"
    assert debits(send(node, event("e4", 500, subject=B, at=later), now=later)) == (500, 0)
    assert list(PoolUsage.objects.order_by("id").values_list("subscriber_id", "mt")) == [
        (bare.pk, 40_000), (bare.pk, 40_000), (bare.pk, 20_000), (other.pk, 500_000),
    ]  # fmt: skip
    assert proof.verify() == []


@pytest.mark.parametrize(
    ("cap", "midnight"), [({"day": 40}, "2026-11-25 00:00"), ({"cycle": 40}, "2026-12-01 00:00")]
)
def test_caps_start_anew_at_midnight_in_shanghai(
    node: Node, bare: Subscriber, pool: Pool, cap: dict[str, Any], midnight: str
) -> None:
    fill(pool, 1000, valid_until=END + 31 * DAY)
    join(pool, bare, **cap)
    start = at(midnight)
    now = start + SECOND
    for name, result in (("first", (60, 0)), ("second", (20, 40))):
        batch = [event(f"{name}-before", 30, at=start - INSTANT), event(name, 30, at=start)]
        assert debits(send(node, *batch, now=now)) == result
    assert [used.mt for used in PoolUsage.objects.all()] == [40_000, 40_000]


def test_the_next_day_opens_who_met_the_cap_of_the_day(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    fill(pool, 1000)
    join(pool, bare, day=40)
    send(node, event("e1", 40))
    assert blocked(bare) == "quota_exhausted"
    enforcement.sweep(now=at("2026-11-24 23:59"))
    assert blocked(bare) == "quota_exhausted"
    enforcement.sweep(now=at("2026-11-25 00:00"))
    assert blocked(bare) == ""


def test_leaving_keeps_history_and_late_usage_of_before(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    bucket = fill(pool, 100)
    join(pool, bare)
    send(node, event("e1", 10))
    pools.leave(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=NOON + HOUR)
    assert blocked(bare) == "quota_exhausted"
    now = NOON + 2 * HOUR
    assert debits(send(node, event("e2", 10, at=NOON + SECOND), now=now)) == (10, 0)
    assert debits(send(node, event("e3", 10, at=NOON + HOUR), now=now)) == (0, 10)
    assert left(bucket) == 80_000
    [member] = PoolMember.objects.all()
    assert (member.joined_by, member.left_by, member.left_at) == ("clerk", "clerk", NOON + HOUR)
    assert PoolUsage.objects.get().mt == 20_000
    with pytest.raises(UnknownPool):
        pools.leave(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=now)


@pytest.mark.parametrize("before", [{"cycle": 30}, {}])
def test_leaving_and_coming_back_renews_no_cap(
    node: Node, bare: Subscriber, pool: Pool, before: dict[str, Any]
) -> None:
    fill(pool, 100)
    join(pool, bare, **before)
    pools.leave(pool_id=pool.pk, subscriber_id=bare.pk, actor="c", now=NOON)
    join(pool, bare, now=NOON + SECOND, cycle=30)
    batch = [event("e1", 20, at=NOON - SECOND), event("e2", 20, at=NOON + SECOND)]
    assert debits(send(node, *batch, now=NOON + HOUR)) == (30, 10)


def test_other_caps_hold_from_their_instant_on(node: Node, bare: Subscriber, pool: Pool) -> None:
    fill(pool, 100)
    join(pool, bare, cycle=10)
    send(node, event("e1", 10))
    assert blocked(bare) == "quota_exhausted"
    pools.set_caps(
        pool_id=pool.pk, subscriber_id=bare.pk, cycle_cap_mt=25_000, day_cap_mt=10**9,
        actor="clerk", now=NOON + HOUR,
    )  # fmt: skip
    assert blocked(bare) == ""
    now = NOON + 2 * HOUR
    assert debits(send(node, event("e2", 20, at=now), now=now)) == (15, 5)
    caps = PoolMember.objects.order_by("joined_at").values_list("cycle_cap_mt", "left_at")
    assert list(caps) == [(10_000, NOON + HOUR), (25_000, None)]


def test_one_pool_at_a_time_and_a_repeat_changes_nothing(
    bare: Subscriber, account: Account, pool: Pool
) -> None:
    first = join(pool, bare, cycle=10)
    assert join(pool, bare, now=NOON, cycle=10) == first
    second = pools.create_pool(account_id=account.pk, name="x", kind="family", now=START)
    for target, caps in ((second, {"cycle": 10}), (pool, {"cycle": 11})):
        with pytest.raises(MembershipRefused):
            join(target, bare, now=NOON, **caps)
    with pytest.raises(UnknownPool):
        pools.join(pool_id=pool.pk + 99, subscriber_id=bare.pk, actor="c", now=NOON)


def test_a_grant_to_a_pool_is_made_once_and_opens_its_members(
    bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    join(pool, bare)
    ChargingProfile.objects.update(blocked="quota_exhausted")
    bucket = fill(pool, 10)
    assert (blocked(bare), blocked(other)) == ("", "quota_exhausted")
    assert fill(pool, 10) == bucket
    with pytest.raises(GrantReused):
        fill(pool, 11)
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.subscriber_id) == ("grant", None)


def test_late_usage_of_a_closed_pool_month_is_paid_by_todays_balance(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    fill(pool, 10)
    december = fill(pool, 10, key="d", valid_from=END, valid_until=END + 31 * DAY)
    join(pool, bare)
    ledger.close_due_buckets(now=END + HOUR)
    now = END + 2 * HOUR
    send(node, event("e1", 4, at=END - SECOND), now=now)
    assert UsageEvent.objects.get().late
    assert left(december) == 6000
    assert PoolUsage.objects.get().day == now.date()
    assert proof.verify() == []


def test_events_that_only_a_pool_can_tell_late_are_written_beside_the_others(
    node: Node, bare: Subscriber, pool: Pool, other: Subscriber
) -> None:
    """One member has a bucket of its own for the time, the other an open or a closed one of the
    pool's."""
    give(bare, 10, end=END + DAY)
    fill(pool, 10)
    fill(pool, 10, key="d", valid_from=END, valid_until=END + 31 * DAY)
    fill(pool, 10, key="closed, beside an open one", valid_from=END, valid_until=END + HOUR)
    for one in (bare, other):
        join(pool, one)
    now = END + 3 * HOUR
    ledger.close_due_buckets(now=now)
    assert Bucket.objects.filter(closed_at=None).count() == 2
    times = {"old": END - SECOND, "new": END, "newer": END + SECOND}
    batch = [event(name, 1, at=when) for name, when in times.items()]
    batch += [event(f"b-{name}", 1, subject=B, at=when) for name, when in times.items()]
    assert counts(send(node, *batch, now=now)) == (6, 0, 0, 0)
    late = set(UsageEvent.objects.filter(late=True).values_list("event_id", flat=True))
    assert late == {"b-old"}
    assert UsageEvent.objects.count() == 6
    assert proof.verify() == []


def test_what_is_left_is_own_and_the_pools_within_the_cap(bare: Subscriber, pool: Pool) -> None:
    """ours-03: 40 M in the pool; a may take 10 M; b takes 35 M, then 5 M are left for a."""
    fill(pool, 40_000_000)
    join(pool, bare, cycle=10_000_000)
    assert share(bare) == (0, 10**10)


@pytest.mark.django_db(transaction=True)
def test_members_at_once_share_to_the_last_token(node: Node, account: Account, pool: Pool) -> None:
    bucket = fill(pool, 100)
    members = [make_subscriber(account, f"+86139000001{number:02}") for number in range(8)]
    for member in members:
        join(pool, member, cycle=20)

    def work(number: int) -> int:
        try:
            if number % 8 == 3:
                fill(pool, 1, key=f"more {number}")
            if number % 8 == 5:
                pools.set_caps(
                    pool_id=pool.pk, subscriber_id=members[number % 8].pk,
                    cycle_cap_mt=20_000 + number, day_cap_mt=10**9, actor="c", now=NOON,
                )  # fmt: skip
            batch = [
                event(f"e{number}-{step}", 1, subject=members[(number + step) % 8].msisdn)
                for step in range(6)
            ]
            return send(node, *batch, now=NOON + SECOND).tally.debited_mt
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(work, range(32)))
    used = sum(row.mt for row in PoolUsage.objects.all())
    given = sum(one.granted_mt - one.remaining_mt for one in Bucket.objects.all())
    assert (used, given) == (taken, taken)
    assert left(bucket) == 0
    assert proof.verify() == []


# --- API


def test_who_may_go_on_with_a_pool_is_not_told_that_all_is_used_up(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    give(bare, 10)
    join(pool, bare)
    fill(pool, 5)

    def told() -> list[str]:
        messages = OutboxMessage.objects.filter(subscriber_id=bare.pk).order_by("id")
        return [one.template for one in messages]

    send(node, event("e1", 12))
    assert told() == ["used_50", "used_80"]
    send(node, event("e2", 2))
    assert told() == ["used_50", "used_80"]
    send(node, event("e3", 1))
    assert told() == ["used_50", "used_80", "used_100"]


@pytest.fixture
def crm(db: None) -> APIClient:
    scopes = ["accounts:read", "accounts:write", "adjustments:write"]
    _key, token = keys.issue_key(kind="staff", scopes=scopes, name="crm", now=NOON)
    return client_of(token)


def test_a_pool_lives_through_the_api(
    crm: APIClient, node: Node, bare: Subscriber, clock_at_noon: object
) -> None:
    made = crm.post("/api/v1/pools", {"account_id": bare.account_id, "name": "Wang"}, format="json")
    assert made.status_code == 201
    address = f"/api/v1/pools/{made.json()['id']}"
    body = {"subscriber_id": bare.pk, "cycle_cap": 50}
    assert crm.post(f"{address}/members", body, format="json").status_code == 201
    assert crm.post(f"{address}/members", body, format="json").status_code == 200
    grant = {"name": "p", "tokens": 80, "valid_until": END.isoformat(), "reason": "sale"}
    head = {"idempotency-key": "g"}
    answers = [
        crm.post(f"{address}/grants", grant, format="json", headers=head).status_code
        for _time in range(2)
    ]
    assert answers == [201, 200]
    send(node, event("e1", 20))
    [member] = crm.get(f"{address}/members").json()["results"]
    assert (member["msisdn"], member["used_mt"], member["cycle_cap_mt"]) == (A, 20_000, 50_000)
    assert crm.get(address).json()["buckets"][0]["remaining_mt"] == 60_000
    _key, token = keys.issue_key(kind="subscriber", subscriber_id=bare.pk, now=NOON)
    mine = client_of(token).get("/api/v1/me/balance").json()
    assert (mine["available_mt"], mine["pool"]["available_mt"]) == (0, 30_000)
    one = f"{address}/members/{bare.pk}"
    assert crm.patch(one, {"day_cap": 5}, format="json").json()["day_cap_mt"] == 5000
    assert crm.delete(one).json()["left_at"] is not None
    assert crm.delete(one).status_code == 404
    assert crm.get("/api/v1/pools", {"account_id": bare.account_id}).json()["results"] != []


def test_a_grant_to_a_pool_wants_its_own_scope(pool: Pool) -> None:
    _key, token = keys.issue_key(kind="staff", scopes=["accounts:write"], name="c", now=NOON)
    answer = client_of(token).post(f"/api/v1/pools/{pool.pk}/grants", {})
    assert answer.status_code == 403


def test_own_before_pool_is_shown_apart(bare: Subscriber, pool: Pool) -> None:
    give(bare, 5)
    fill(pool, 7)
    join(pool, bare)
    assert share(bare) == (5000, 7000)
