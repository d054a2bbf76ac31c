"""What a pool paid goes back into it: to the token, to its cap, and to whoever waits for it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any

import pytest
from django.db import connection

from accounts import lifecycle
from accounts.models import Account, Subscriber
from usage import corrections, ledger, movements, pools, proof, rerating, weights
from usage.models import Bucket, Callback, LedgerEntry, Node, Pool, PoolUsage, QuotaSession, Weight
from usage.normalising import Counts

from . import conftest
from .conftest import BORN, END, HOUR, NOON, SECOND, START, at, event, give, left, make_subscriber
from .test_corrections import LATER, amend, number_of, payg, void
from .test_pools import DAY, B, blocked, fill, join

WHY: dict[str, Any] = {"actor": "clerk", "reason": "sold by mistake"}


@pytest.fixture(autouse=True)
def proven(db: None) -> Any:
    """Every test of this file ends with a clean proof."""
    yield
    assert proof.verify() == []
    assert proof.period_totals(start=date(2026, 9, 1), end=date(2027, 2, 1))[1] == []


@pytest.fixture
def pool(db: None) -> Pool:
    """A company's pool: its account pays, whosever the members are."""
    company = lifecycle.open_account(kind="enterprise", name="Li", now=BORN)
    return pools.create_pool(account_id=company.pk, name="Li", kind="enterprise", now=START)


@pytest.fixture
def other(account: Account) -> Subscriber:
    return make_subscriber(account, B)


def send(node: Node, name: str, tokens: int, *, time: datetime = NOON, **more: Any) -> None:
    now = more.pop("now", time)
    conftest.send(node, event(name, tokens, at=time, **more), now=now)


def used(who: Subscriber) -> list[tuple[date, int]]:
    """What the caps of a member are held against, in mt by day."""
    rows = PoolUsage.objects.filter(subscriber_id=who.pk).order_by("day")
    return list(rows.values_list("day", "mt"))


def void_bucket(bucket: Bucket, *, now: datetime = LATER) -> None:
    movements.void_bucket(bucket_id=bucket.pk, key=f"void {bucket.pk}", now=now, **WHY)


def entries(bucket: Bucket) -> list[tuple[str, int]]:
    """What moved a bucket after its grant."""
    rows = LedgerEntry.objects.filter(bucket_id=bucket.pk).exclude(kind="grant").order_by("id")
    return list(rows.values_list("kind", "amount_mt"))


def test_a_void_fills_the_pool_s_buckets_in_reverse_and_names_payer_and_consumer(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    own = give(bare, 10)
    first, second = fill(pool, 10, key="p1"), fill(pool, 10, key="p2")
    join(pool, bare)
    send(node, "e1", 25)
    assert (left(own), left(first), left(second)) == (0, 0, 5_000)
    void("e1")
    assert (left(own), left(first), left(second)) == (10_000,) * 3
    refunds = LedgerEntry.objects.filter(kind="refund").order_by("id")
    assert [one.bucket_id for one in refunds] == [second.pk, first.pk, own.pk]
    assert {one.subscriber_id for one in refunds} == {bare.pk}
    payers = {Bucket.objects.get(pk=one.bucket_id).pool_id for one in refunds}
    assert payers == {None, pool.pk}
    assert pool.account_id != bare.account_id
    assert used(bare) == [(NOON.date(), 0)]


def test_less_goes_back_to_the_pool_first_since_it_paid_last(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    own, shared = give(bare, 10), fill(pool, 10)
    join(pool, bare)
    send(node, "e1", 25)
    amend("e1", 18)  # 5 uncovered, then 2 of the pool's
    assert (left(own), left(shared), used(bare)) == (0, 2_000, [(NOON.date(), 8_000)])
    amend("e1", 4)
    assert (left(own), left(shared), used(bare)) == (6_000, 10_000, [(NOON.date(), 0)])
    amend("e1", 13)
    assert (left(own), left(shared), used(bare)) == (0, 7_000, [(NOON.date(), 3_000)])
    void("e1")
    assert (left(own), left(shared), used(bare)) == (10_000, 10_000, [(NOON.date(), 0)])


def test_priced_usage_of_a_member_goes_back_before_the_pool_s(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    shared = fill(pool, 10)
    join(pool, bare)
    payg(bare, cap=5)
    send(node, "e1", 15)
    amend("e1", 8)
    assert (left(shared), used(bare)) == (2_000, [(NOON.date(), 8_000)])


def test_a_void_gives_the_cap_of_its_own_day_back(node: Node, bare: Subscriber, pool: Pool) -> None:
    fill(pool, 1000)
    join(pool, bare, cycle=60, day=40)
    send(node, "e1", 40)
    send(node, "e2", 20, time=NOON + DAY)
    assert blocked(bare) == "quota_exhausted"  # the month's cap
    void("e1", now=NOON + DAY + HOUR)
    assert used(bare) == [(date(2026, 11, 24), 0), (date(2026, 11, 25), 20_000)]
    assert blocked(bare) == ""
    # The day's cap lets 20 more on the 25th, the month's 40 in all.
    time = NOON + DAY + 2 * HOUR
    conftest.send(node, event("e3", 30, at=time), now=time)
    assert used(bare)[-1] == (date(2026, 11, 25), 40_000)


def test_late_usage_goes_back_to_the_day_it_was_counted_on(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    fill(pool, 10)
    december = fill(pool, 10, key="d", valid_from=END, valid_until=END + 31 * DAY)
    join(pool, bare)
    ledger.close_due_buckets(now=END + HOUR)
    send(node, "e1", 4, time=END - SECOND, now=END + 2 * HOUR)
    assert used(bare) == [(date(2026, 12, 1), 4_000)]
    amend("e1", 3, now=END + 2 * DAY)
    amend("e1", 9, now=END + 3 * DAY)
    assert used(bare) == [(date(2026, 12, 1), 3_000), (date(2026, 12, 4), 6_000)]
    amend("e1", 2, now=END + 4 * DAY)
    assert used(bare) == [(date(2026, 12, 1), 2_000), (date(2026, 12, 4), 0)]
    void("e1", now=END + 5 * DAY)
    assert (left(december), used(bare)) == (
        10_000, [(date(2026, 12, 1), 0), (date(2026, 12, 4), 0)],
    )  # fmt: skip


def test_a_void_opens_the_other_members_who_wait_for_the_pool(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    fill(pool, 10)
    join(pool, bare)
    join(pool, other)
    send(node, "e1", 10)
    send(node, "e2", 1, subject=B)
    assert (blocked(bare), blocked(other)) == ("quota_exhausted",) * 2
    void("e1")
    assert (blocked(bare), blocked(other)) == ("", "")


def test_sessions_of_the_other_members_are_told_to_ask_again(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    fill(pool, 10)
    for member in (bare, other):
        join(pool, member)
        QuotaSession.objects.create(
            ref=f"qs_{member.pk}", node_id=node.pk, session=member.msisdn, subject=member.msisdn,
            subscriber_id=member.pk, model="plain", notify_url="https://node.example/hook",
            state="open", sequence=0, created_at=NOON, supervised_until=NOON + HOUR,
        )  # fmt: skip
    send(node, "e1", 10)
    void("e1")
    asked = Callback.objects.filter(kind="REAUTHORIZE").values_list("session_id", flat=True)
    assert sorted(asked) == list(QuotaSession.objects.order_by("id").values_list("id", flat=True))
    assert len(asked) == 2


def test_who_has_left_fills_the_pool_and_stays_shut(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    shared = fill(pool, 10)
    join(pool, bare)
    join(pool, other)
    send(node, "e1", 10)
    send(node, "e2", 1, subject=B)
    pools.leave(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=NOON + SECOND)
    void("e1")
    assert (left(shared), used(bare)) == (10_000, [(NOON.date(), 0)])
    assert (blocked(bare), blocked(other)) == ("quota_exhausted", "")


def test_who_has_moved_on_to_another_pool_fills_the_first_one(
    node: Node, bare: Subscriber, pool: Pool, account: Account
) -> None:
    second = pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)
    old, new = fill(pool, 10, key="p1"), fill(second, 10, key="p2")
    join(pool, bare)
    send(node, "e1", 6)
    pools.leave(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=NOON + SECOND)
    join(second, bare, now=NOON + 2 * SECOND)
    amend("e1", 8)  # more of the same instant: the pool of then pays
    assert (left(old), left(new)) == (2_000, 10_000)
    void("e1")
    assert (left(old), left(new)) == (10_000, 10_000)


def test_what_returns_to_a_closed_bucket_of_a_pool_expires_but_frees_the_cap(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    ended = fill(pool, 10, valid_until=at("2026-11-20 00:00"), now=START)
    join(pool, bare, cycle=10)
    join(pool, other)
    early = at("2026-11-19 12:00")
    send(node, "e1", 10, time=early)
    ledger.close_due_buckets(now=NOON)
    void("e1")
    assert entries(ended) == [("debit", -10_000), ("refund", 10_000), ("expiry", -10_000)]
    assert used(bare) == [(early.date(), 0)]
    assert not Callback.objects.exists()


def test_what_returns_to_a_void_bucket_is_void(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    """It pays nothing any more, whatever comes back; the ledger says why it is empty."""
    own, shared = give(bare, 10), fill(pool, 10)
    join(pool, bare)
    join(pool, other)
    send(node, "e1", 15)
    send(node, "e2", 5, subject=B)
    void_bucket(own)
    void_bucket(shared)
    void("e1")
    assert (left(own), left(shared)) == (0, 0)
    assert entries(own) == [("debit", -10_000), ("refund", 10_000), ("void", -10_000)]
    assert entries(shared) == [
        ("debit", -5_000), ("debit", -5_000), ("refund", 5_000), ("void", -5_000),
    ]  # fmt: skip
    assert used(bare) == [(NOON.date(), 0)]
    assert (blocked(bare), blocked(other)) == ("quota_exhausted",) * 2
    send(node, "e3", 1, time=LATER + SECOND)
    assert (left(own), left(shared)) == (0, 0)


def test_a_void_bucket_that_has_closed_is_void_still(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    shared = fill(pool, 10)
    join(pool, bare)
    send(node, "e1", 4)
    void_bucket(shared)
    ledger.close_due_buckets(now=END + HOUR)
    void("e1", now=END + DAY)
    assert entries(shared)[-2:] == [("refund", 4_000), ("void", -4_000)]


def test_a_part_into_a_void_bucket_and_a_part_into_a_living_one(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    first, second = fill(pool, 10, key="p1"), fill(pool, 10, key="p2")
    join(pool, bare)
    join(pool, other)
    send(node, "e1", 20)
    send(node, "e2", 1, subject=B)
    void_bucket(first)
    void("e1")
    assert (left(first), left(second)) == (0, 10_000)
    assert (blocked(bare), blocked(other)) == ("", "")


def test_rating_again_fills_the_pool_and_opens_its_members(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    shared = fill(pool, 10)
    join(pool, bare, cycle=10)
    join(pool, other)
    send(node, "e1", 10)
    send(node, "e2", 1, subject=B)
    weight = Weight.objects.get(model__code="plain")
    weights.correct_weight(
        weight_id=weight.pk, input_milli=400, cached_milli=400, output_milli=400,
        reasoning_milli=400, now=LATER, **WHY,
    )  # fmt: skip
    dry = rerating.dry_run(
        model_code="plain", start=START, end=END, actor="clerk", reason="wrong", now=LATER
    )
    rerating.begin(rerating_id=dry.pk, actor="clerk", now=LATER)
    rerating.apply(rerating_id=dry.pk, clock=lambda: LATER)
    assert (left(shared), used(bare)) == (6_000, [(NOON.date(), 4_000)])
    assert (blocked(bare), blocked(other)) == ("", "")


@pytest.mark.django_db(transaction=True)
def test_corrections_of_many_members_at_once_keep_the_pool_whole(
    node: Node, account: Account, pool: Pool
) -> None:
    """Voids, amendments, usage, grants and caps of one pool beside each other: no drift, no
    deadlock that reaches anyone, and what was voided is there again."""
    shared = fill(pool, 400)
    numbers = [f"+86139000001{number:02}" for number in range(6)]
    members = [make_subscriber(account, number) for number in numbers]
    for member in members:
        join(pool, member, cycle=80)
    for place in range(36):
        send(node, f"e{place}", 10, subject=numbers[place % 6])
    events = {f"e{place}": number_of(f"e{place}") for place in range(36)}

    def work(place: int) -> None:
        common: dict[str, Any] = {"actor": "clerk", "reason": "r", "now": LATER}
        name = events[f"e{place}"]
        try:
            if place % 4 == 0:
                corrections.void(event_id=name, key=f"v{place}", **common)
            elif place % 4 == 1:
                corrections.amend(
                    event_id=name, counts=Counts(4, 0, 0, 0), key=f"a{place}", **common
                )
            elif place % 4 == 2:
                send(node, f"n{place}", 3, time=LATER, subject=numbers[place % 6])
            else:
                fill(pool, 1, key=f"more {place}")
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(36)))
    taken = 360 - 9 * 10 - 9 * 6 + 9 * 3
    assert sum(mt for who in members for _day, mt in used(who)) == taken * 1000
    assert (
        left(shared) + sum(one.remaining_mt for one in Bucket.objects.exclude(pk=shared.pk))
        == (400 + 9 - taken) * 1000
    )
    assert {blocked(who) for who in members} == {""}
