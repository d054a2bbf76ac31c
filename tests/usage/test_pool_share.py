"""What a member sees of a pool: in the balance, on the page, in both languages, and nobody else."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Account, Subscriber
from usage import balances, pools, profiles
from usage.models import Node, Pool
from usage.shares import PoolShare

from .conftest import END, HOUR, NOON, SECOND, START, client_of, event, give, make_subscriber, send
from .quota_calls import create, release
from .test_pools import B, blocked, fill, join
from .test_portal import balance_mt, read
from .test_portal import client_of as portal_of


@pytest.fixture
def pool(account: Account) -> Pool:
    return pools.create_pool(account_id=account.pk, name="Wangs", kind="family", now=START)


@pytest.fixture
def other(account: Account) -> Subscriber:
    return make_subscriber(account, B)


def share(who: Subscriber, **at: Any) -> PoolShare:
    found = balances.balance(subscriber_id=who.pk, now=at.get("now", NOON)).pool
    assert found is not None
    return found


def mine(who: Subscriber) -> dict[str, Any]:
    _key, token = keys.issue_key(kind="subscriber", subscriber_id=who.pk, now=NOON)
    answer = client_of(token).get("/api/v1/me/balance")
    assert answer.status_code == 200
    return dict(answer.json())


def test_the_share_is_the_least_of_the_pool_and_both_caps(
    node: Node, bare: Subscriber, other: Subscriber, pool: Pool
) -> None:
    fill(pool, 100)
    join(pool, bare, cycle=60, day=40)
    join(pool, other)
    assert share(bare).available_mt == 40_000  # the day's cap
    tomorrow = NOON + timedelta(days=1)
    send(node, event("e1", 30))
    assert (share(bare).available_mt, share(bare, now=tomorrow).available_mt) == (10_000, 30_000)
    send(node, event("e2", 65, subject=B))
    assert share(bare).available_mt == 5_000  # what the pool has
    assert (share(bare).free_mt, share(bare).granted_mt, share(other).used_today_mt) == (
        5_000, 100_000, 65_000,
    )  # fmt: skip


def test_what_a_session_holds_counts_against_the_caps_of_its_member(
    collector: APIClient, bare: Subscriber, other: Subscriber, pool: Pool, clock_at_noon: object
) -> None:
    fill(pool, 100)
    join(pool, bare, cycle=50)
    join(pool, other)
    held = create(collector, requested=30).json()
    assert (share(bare).reserved_mt, share(bare).available_mt) == (30_000, 20_000)
    assert (share(other).reserved_mt, share(other).available_mt) == (0, 70_000)
    release(collector, held["ref"], 1)
    assert (share(bare).reserved_mt, share(bare).available_mt) == (0, 50_000)


def test_a_share_ends_with_the_membership_and_begins_with_it(bare: Subscriber, pool: Pool) -> None:
    fill(pool, 100)
    join(pool, bare, now=NOON)
    assert balances.balance(subscriber_id=bare.pk, now=NOON - SECOND).pool is None
    assert share(bare).available_mt == 100_000
    pools.leave(pool_id=pool.pk, subscriber_id=bare.pk, actor="clerk", now=NOON + HOUR)
    assert share(bare, now=NOON + HOUR - SECOND).available_mt == 100_000
    assert balances.balance(subscriber_id=bare.pk, now=NOON + HOUR).pool is None


def test_buckets_of_other_times_are_not_part_of_the_share(bare: Subscriber, pool: Pool) -> None:
    fill(pool, 7, key="now")
    fill(pool, 100, key="later", valid_from=END, valid_until=END + timedelta(days=31))
    fill(pool, 100, key="night", minute_from=0, minute_until=360)
    join(pool, bare)
    assert (share(bare).available_mt, share(bare).granted_mt) == (7_000, 7_000)


def test_the_balance_tells_own_and_shared_apart_and_together(
    node: Node, bare: Subscriber, pool: Pool, clock_at_noon: object
) -> None:
    give(bare, 5)
    fill(pool, 100)
    join(pool, bare, cycle=20)
    send(node, event("e1", 9))
    found = mine(bare)
    assert (found["available_mt"], found["usable_mt"], found["usable_tokens"]) == (0, 16_000, 16)
    assert found["pool"] == {
        "pool_id": pool.pk, "name": "Wangs", "kind": "family", "available_mt": 16_000,
        "reserved_mt": 0, "used_this_cycle_mt": 4_000, "used_today_mt": 4_000,
        "cycle_cap_mt": 20_000, "cycle_capped": True, "day_cap_mt": 2**62, "day_capped": False,
        "pool_free_mt": 96_000, "pool_granted_mt": 100_000, "goes_first": False,
    }  # fmt: skip


def test_who_is_in_no_pool_reads_the_same_twice(
    subscriber: Subscriber, neighbour: Subscriber, pool: Pool, clock_at_noon: object
) -> None:
    fill(pool, 100)
    join(pool, subscriber)
    found = mine(neighbour)
    assert (found["pool"], found["usable_mt"]) == (None, found["available_mt"])
    page = read(portal_of(neighbour))
    assert 'id="pool"' not in page and "Wangs" not in page


@pytest.fixture
def portal_time(clock_at_noon: Iterable[time_machine.Traveller]) -> None:
    """The portal reads the clock by itself."""


@pytest.mark.usefixtures("portal_time")
def test_a_member_whose_tokens_are_only_in_a_pool_sees_them(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    fill(pool, 100)
    join(pool, bare, cycle=60)
    send(node, event("e1", 12))
    page = read(portal_of(bare))
    assert balance_mt(page) == 48_000
    assert 'id="pool-left" data-mt="48000"' in page
    for text in ("Wangs", "Family pool", "You used this month", "of at most 60"):
        assert text in page
    assert "The pool has 88 of 100 left" in page
    assert "No tokens at the moment" not in page
    assert 'id="pool-left" data-mt="48000"' in read(portal_of(bare), language="zh-hans")


@pytest.mark.usefixtures("portal_time")
def test_own_and_shared_tokens_add_up_and_stand_in_the_order_of_use(
    subscriber: Subscriber, pool: Pool
) -> None:
    fill(pool, 500)
    join(pool, subscriber)
    page = read(portal_of(subscriber))
    assert balance_mt(page) == 1_500_000
    assert page.index("Used in this order") < page.index('id="pool"')
    assert "none but what the pool has" in page and "500 of it from Wangs" in page
    profiles.set_terms(
        subscriber_id=subscriber.pk, beyond="stop", payg_fen_per_million=0, payg_cap_mt=0,
        now=NOON, pool_first=True,
    )  # fmt: skip
    page = read(portal_of(subscriber))
    assert page.index('id="pool"') < page.index("Used in this order")


@pytest.mark.usefixtures("portal_time")
@pytest.mark.parametrize(
    ("caps", "told"),
    [
        ({"day": 10}, "Your share of Wangs is used up for today"),
        ({"cycle": 10}, "Your share of Wangs is used up"),
        ({"cycle": 10, "day": 10}, "Your share of Wangs is used up"),
        ({}, "Your tokens are used up"),
    ],
)
def test_a_member_at_the_end_is_told_which_end_it_is(
    node: Node, bare: Subscriber, pool: Pool, caps: dict[str, Any], told: str
) -> None:
    fill(pool, 100 if caps else 10)
    join(pool, bare, **caps)
    send(node, event("e1", 10))
    assert blocked(bare) == "quota_exhausted"
    page = read(portal_of(bare))
    assert f"<b>{told}</b>" in page
    assert balance_mt(page) == 0


@pytest.mark.usefixtures("portal_time")
def test_looking_at_a_share_costs_four_queries_more(
    subscriber: Subscriber, pool: Pool, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        fill(pool, 1, key=f"p{number}")
    join(pool, subscriber)
    client = portal_of(subscriber)
    with django_assert_max_num_queries(20):
        read(client)
