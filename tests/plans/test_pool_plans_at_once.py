"""Purchases and renewals that fill pools, many at once: one pool, nothing twice, no deadlock."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from accounts import lifecycle
from accounts.models import Account, Subscriber
from plans import catalogue, subscribing
from plans.models import Charge
from tests.usage.conftest import event, send
from usage import pools, proof
from usage.models import Bucket, ChargingProfile, Node, Pool, PoolMember
from usage.nodes import create_node

from .conftest import NOON, at, close_connection, make_subscriber
from .test_catalogue_file import file
from .test_pool_plans import BOOSTER, BORN, DECEMBER, FAMILY, SECOND, filled, join, subscribe

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def proven(transactional_db: None) -> Iterator[None]:
    """Every test of this file ends with a clean proof."""
    yield
    assert proof.verify() == []


@pytest.fixture
def sold(tmp_path: Path, transactional_db: None) -> None:
    """A family plan of 10 M tokens and a booster of 5,000."""
    catalogue.load(path=file(tmp_path, plan=FAMILY, pack=BOOSTER), now=BORN)


@pytest.fixture
def node(sold: None) -> Node:
    return create_node(name="n1", cluster="wuxi", now=BORN)[0]


@pytest.mark.usefixtures("sold")
def test_eight_buyers_of_one_account_at_once_open_one_pool(account: Account) -> None:
    people = [make_subscriber(account, f"+861390000010{number}") for number in range(8)]

    def buy(who: Subscriber) -> int | None:
        try:
            return subscribe(who).pool_id
        finally:
            close_connection()

    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(buy, people))
    pool = Pool.objects.get()
    assert found == {pool.pk}
    assert PoolMember.objects.filter(pool=pool).count() == 8
    assert len(filled(pool)) == Charge.objects.count() == 8


@pytest.mark.usefixtures("sold")
def test_one_sign_up_sent_eight_times_at_once_is_one(account: Account) -> None:
    def buy(_turn: int) -> None:
        try:
            subscribing.sign_up(
                msisdn="+8613900000200", plan_code="token-9.9", starts_at=NOON, actor="c",
                now=NOON, account_id=account.pk,
            )  # fmt: skip
        finally:
            close_connection()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(buy, range(8)))
    assert filled(Pool.objects.get()) == [("plan", 2_333_333)]
    assert PoolMember.objects.count() == Charge.objects.count() == 1


def test_renewal_beside_usage_of_many_pools_loses_nothing_and_locks_in_order(
    node: Node,
) -> None:
    """Each buyer fills one pool and draws on another, so that owners and pools lie crosswise:
    locks out of order would meet here."""
    people = []
    for number in range(6):
        account = lifecycle.open_account(kind="person", name=f"a{number}", now=BORN)
        people.append(make_subscriber(account, f"+861390000030{number}"))
    opened = []
    for who in reversed(people):  # the highest subscriber opens the lowest pool
        pool = subscribe(who, starts=at("2026-11-01 00:00")).pool
        assert pool is not None
        opened.append(pool)
        pools.leave(pool_id=pool.pk, subscriber_id=who.pk, actor="c", now=NOON)
    for who, pool in zip(people, opened, strict=True):
        join(pool, who, now=NOON + SECOND)
    now = DECEMBER - timedelta(minutes=5)

    def work(turn: int) -> None:
        try:
            if turn % 4 == 0:
                subscribing.renew_due(now=now)
            else:
                batch = [
                    event(f"e{turn}-{place}", 7, subject=who.msisdn, at=now, model="m")
                    for place, who in enumerate(people)
                ]
                assert send(node, *batch, now=now).tally.debited_mt == 42_000
        finally:
            close_connection()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(24)))
    assert Bucket.objects.filter(valid_from=DECEMBER).count() == 6
    assert sum(one.remaining_mt for one in Bucket.objects.all()) == (120_000_000 - 18 * 42) * 1000


def test_first_months_of_many_pools_lock_them_in_the_order_of_charging(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """Buyers who wait for their first month look at one pool after the other; the other members'
    usage meanwhile asks for all of them from the lowest on."""
    buyers, members, opened = [], [], []
    for number in range(12):
        account = lifecycle.open_account(kind="person", name=f"a{number}", now=BORN)
        buyers.append(make_subscriber(account, f"+86139000004{number:02}"))
        members.append(make_subscriber(account, f"+86139000005{number:02}"))
    for who in reversed(buyers):
        pool = subscribe(who, starts=DECEMBER).pool
        assert pool is not None
        opened.append(pool)
    for who, pool in zip(members, opened, strict=True):
        join(pool, who)
    ChargingProfile.objects.filter(subscriber__in=buyers).update(blocked="quota_exhausted")

    def work(turn: int) -> None:
        try:
            for step in range(6):
                if turn == 0:
                    subscribing.renew_due(now=DECEMBER)
                else:
                    batch = [
                        event(
                            f"e{turn}-{step}-{who.pk}",
                            1,
                            subject=who.msisdn,
                            at=DECEMBER,
                            model="m",
                        )
                        for who in members
                    ]
                    send(node, *batch, now=DECEMBER + SECOND)
        finally:
            close_connection()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert Bucket.objects.filter(valid_from=DECEMBER).count() == 12
    assert "failed" not in caplog.text and "deadlock" not in caplog.text
