"""Plans and packs that fill a pool: whose, when it is opened, who is let in, and what stays."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.db import transaction
from pytest_django import DjangoCaptureOnCommitCallbacks

from accounts import lifecycle
from accounts.models import Account, Subscriber
from plans import catalogue, ordering, subscribing
from plans.models import Charge, Order, PlanVersion, Subscription
from plans.refusals import AlreadySubscribed, CatalogueRefused, NoPool, PoolRefused
from tests.usage.conftest import event, send
from usage import ledger, pools, proof
from usage.models import Bucket, ChargingProfile, Node, Pool, PoolMember, PoolUsage
from usage.nodes import create_node

from .conftest import NOON, at, close_connection, make_subscriber
from .test_catalogue_file import PACK, PLAN, file

pytestmark = pytest.mark.django_db
BORN = at("2026-01-01 00:00")
DECEMBER, JANUARY = at("2026-12-01 00:00"), at("2027-01-01 00:00")
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
FAMILY = PLAN + "    pool: family\n    rollover: {percent: 50}\n"
BOOSTER = PACK.replace("tokens: 5", "tokens: 5000") + "    pool: family\n"


@pytest.fixture(autouse=True)
def proven(db: None) -> object:
    """Every test of this file ends with a clean proof."""
    yield
    assert proof.verify() == []


@pytest.fixture
def sold(tmp_path: Path, db: None) -> None:
    """A family plan of 10 M tokens whose rest rolls over by half, and a booster of 5,000."""
    catalogue.load(path=file(tmp_path, plan=FAMILY, pack=BOOSTER), now=BORN)


@pytest.fixture
def node(sold: None) -> Node:
    return create_node(name="n1", cluster="wuxi", now=BORN)[0]


@pytest.fixture
def stranger(db: None) -> Subscriber:
    """Somebody of another account."""
    account = lifecycle.open_account(kind="person", name="Li", now=BORN)
    return make_subscriber(account, "+8613900000009")


def subscribe(who: Subscriber, *, starts: datetime = NOON, now: datetime = NOON) -> Subscription:
    return subscribing.subscribe(
        subscriber_id=who.pk, plan_code="token-9.9", starts_at=starts, actor="clerk", now=now
    )


def boost(who: Subscriber, *, key: str = "k", pay: str = "bill", now: datetime = NOON) -> Order:
    return ordering.place_order(
        subscriber_id=who.pk, plan_code="pack-1", pay=pay, key=key, now=now
    )[0]  # fmt: skip


def join(pool: Pool, who: Subscriber, *, now: datetime = NOON) -> None:
    pools.join(pool_id=pool.pk, subscriber_id=who.pk, actor="clerk", now=now)


def use(
    node: Node, who: Subscriber, name: str, tokens: int, *, time: datetime, **at: datetime
) -> int:
    """What buckets paid of it, in tokens."""
    body = event(name, tokens, subject=who.msisdn, at=time, model="m")
    return send(node, body, now=at.get("now", time)).tally.debited_mt // 1000


def filled(pool: Pool) -> list[tuple[str, int]]:
    """(kind, tokens granted) of the pool's buckets."""
    rows = Bucket.objects.filter(pool=pool).order_by("id").values_list("kind", "granted_mt")
    return [(kind, mt // 1000) for kind, mt in rows]


@pytest.mark.usefixtures("shipped")
def test_a_family_plan_opens_a_pool_and_its_buyer_is_the_first_member(
    subscriber: Subscriber,
) -> None:
    subscription = subscribing.subscribe(
        subscriber_id=subscriber.pk, plan_code="family-59.9", starts_at=NOON, actor="clerk",
        now=NOON,
    )  # fmt: skip
    pool = Pool.objects.get()
    assert (pool.account_id, pool.name, pool.kind) == (subscriber.account_id, "Wang", "family")
    assert subscription.pool == pool
    member = PoolMember.objects.get()
    assert (member.subscriber, member.pool, member.joined_by) == (subscriber, pool, "clerk")
    bucket = Bucket.objects.get()
    assert (bucket.pool, bucket.subscriber, bucket.granted_mt) == (pool, None, 23_333_333_000)
    assert (bucket.valid_from, bucket.valid_until) == (at("2026-11-24 00:00"), DECEMBER)
    charge = Charge.objects.get()
    assert (charge.account_id, charge.subscriber, charge.amount_fen) == (
        subscriber.account_id, subscriber, 1398,
    )  # fmt: skip


@pytest.mark.usefixtures("sold")
def test_months_go_into_the_same_pool_and_what_is_left_rolls_over_there(
    node: Node, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    subscribe(subscriber, starts=at("2026-11-01 00:00"))
    pool = Pool.objects.get()
    join(pool, neighbour)
    assert use(node, neighbour, "e1", 4_000_000, time=NOON + SECOND) == 4_000_000
    for _twice in range(2):
        subscribing.renew_due(now=DECEMBER)
    ledger.close_due_buckets(now=DECEMBER + HOUR)
    assert filled(pool) == [
        ("plan", 10_000_000), ("plan", 10_000_000), ("rollover", 3_000_000),
    ]  # fmt: skip
    now = DECEMBER + 2 * HOUR
    assert use(node, subscriber, "e2", 13_000_001, time=now) == 13_000_000
    assert Charge.objects.count() == 2
    assert not Bucket.objects.filter(pool=None).exists()
    used = dict(PoolUsage.objects.values_list("subscriber_id", "mt"))
    assert used == {neighbour.pk: 4_000_000_000, subscriber.pk: 13_000_000_000}


@pytest.mark.usefixtures("sold")
def test_a_second_buyer_of_the_account_fills_and_joins_the_same_pool(
    subscriber: Subscriber, neighbour: Subscriber
) -> None:
    first, second = subscribe(subscriber), subscribe(neighbour)
    assert first.pool == second.pool == Pool.objects.get()
    assert PoolMember.objects.count() == 2
    assert len(filled(Pool.objects.get())) == 2


@pytest.mark.usefixtures("sold")
def test_a_repeat_opens_joins_and_grants_nothing_twice(subscriber: Subscriber) -> None:
    def sign_up() -> None:
        subscribing.sign_up(
            msisdn=subscriber.msisdn, plan_code="token-9.9", starts_at=NOON, actor="c", now=NOON
        )

    sign_up()
    sign_up()
    with pytest.raises(AlreadySubscribed):
        subscribe(subscriber)
    order = boost(subscriber, pay="now")
    assert boost(subscriber, pay="now").pk == order.pk
    for _time in range(3):
        ordering.fulfil(order_id=order.pk, now=NOON)
        subscribing.renew_due(now=NOON)
    assert filled(Pool.objects.get()) == [("plan", 2_333_333), ("pack", 5000)]
    assert (PoolMember.objects.count(), Charge.objects.count()) == (1, 2)


@pytest.mark.usefixtures("sold")
def test_a_booster_goes_into_the_pool_whoever_of_the_account_orders_it(
    node: Node, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    subscribe(subscriber)
    pool = Pool.objects.get()
    order = boost(neighbour)
    assert (order.state, order.pool) == ("fulfilled", pool)
    assert filled(pool)[-1] == ("pack", 5000)
    assert Charge.objects.get(kind="pack").account_id == subscriber.account_id
    # To order does not let in: whoever runs the pool does.
    assert PoolMember.objects.get().subscriber == subscriber
    assert use(node, neighbour, "e1", 5, time=NOON + SECOND) == 0
    assert use(node, subscriber, "e2", 2_338_333, time=NOON + SECOND) == 2_338_333


@pytest.mark.usefixtures("sold")
@pytest.mark.parametrize("pay", ["bill", "now"])
def test_a_booster_without_a_pool_is_refused_before_it_is_paid(
    subscriber: Subscriber, pay: str
) -> None:
    with pytest.raises(NoPool):
        boost(subscriber, pay=pay)
    assert not (Order.objects.exists() or Charge.objects.exists() or Pool.objects.exists())


@pytest.mark.usefixtures("sold")
def test_whoever_draws_on_another_account_s_pool_buys_no_pool_plan(
    subscriber: Subscriber, stranger: Subscriber
) -> None:
    subscribe(stranger)
    pool = Pool.objects.get()
    join(pool, subscriber)
    with pytest.raises(PoolRefused, match="leave it first"), transaction.atomic():
        subscribe(subscriber)
    with pytest.raises(NoPool):
        boost(subscriber)  # not into a stranger's pool, at one's own cost
    assert Pool.objects.get() == pool
    assert not Subscription.objects.filter(subscriber=subscriber).exists()
    pools.leave(pool_id=pool.pk, subscriber_id=subscriber.pk, actor="clerk", now=NOON)
    own = subscribe(subscriber, now=NOON + SECOND, starts=NOON).pool
    assert own is not None and own.account_id == subscriber.account_id


@pytest.mark.usefixtures("sold")
def test_of_several_pools_the_member_s_own_is_meant_or_none(
    account: Account, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    one, other = (
        pools.create_pool(account_id=account.pk, name=name, kind="enterprise", now=NOON)
        for name in ("one", "other")
    )
    join(other, subscriber)
    assert subscribe(subscriber).pool == other
    assert boost(subscriber).pool == other
    with pytest.raises(PoolRefused, match="several"):
        subscribe(neighbour)
    with pytest.raises(PoolRefused, match="several"):
        boost(neighbour)
    assert filled(one) == []


@pytest.mark.usefixtures("sold")
def test_a_pool_that_staff_opened_is_filled(account: Account, subscriber: Subscriber) -> None:
    pool = pools.create_pool(account_id=account.pk, name="ours", kind="family", now=NOON)
    assert subscribe(subscriber).pool == pool
    assert PoolMember.objects.get().pool == pool


@pytest.mark.usefixtures("sold")
def test_the_end_of_the_plan_keeps_pool_members_and_the_month(
    node: Node, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    subscription = subscribe(subscriber)
    pool = Pool.objects.get()
    join(pool, neighbour)
    subscribing.end_subscription(subscription_id=subscription.pk, actor="clerk", now=NOON)
    assert use(node, neighbour, "e1", 10, time=DECEMBER - SECOND) == 10
    subscribing.renew_due(now=DECEMBER)
    ledger.close_due_buckets(now=DECEMBER + HOUR)
    assert [kind for kind, _tokens in filled(pool)] == ["plan", "rollover"]
    assert PoolMember.objects.filter(left_at=None).count() == 2
    assert PoolUsage.objects.get().mt == 10_000
    again = subscribe(subscriber, starts=DECEMBER + HOUR, now=DECEMBER + HOUR)
    assert again.pool == pool
    assert PoolMember.objects.count() == 2


@pytest.mark.usefixtures("sold")
def test_the_others_go_on_to_the_month_s_end_when_the_buyer_is_terminated(
    node: Node, subscriber: Subscriber, neighbour: Subscriber
) -> None:
    subscribe(subscriber)
    join(Pool.objects.get(), neighbour)
    lifecycle.terminate(
        subscriber_id=subscriber.pk, actor="clerk", reason="left", now=NOON + SECOND
    )
    assert use(node, neighbour, "e1", 10, time=DECEMBER - SECOND) == 10
    assert subscribing.renew_due(now=DECEMBER) == 0


@pytest.mark.usefixtures("sold")
def test_who_has_left_goes_on_filling_and_is_not_let_in_again(subscriber: Subscriber) -> None:
    subscribe(subscriber)
    pool = Pool.objects.get()
    pools.leave(pool_id=pool.pk, subscriber_id=subscriber.pk, actor="clerk", now=NOON + SECOND)
    subscribing.renew_due(now=DECEMBER)
    assert len(filled(pool)) == 2
    assert PoolMember.objects.filter(left_at=None).count() == 0


@pytest.mark.usefixtures("sold")
def test_a_start_in_the_past_pays_for_usage_of_then_that_comes_now(
    node: Node, subscriber: Subscriber
) -> None:
    subscribe(subscriber, starts=at("2026-10-20 15:00"))
    pool = Pool.objects.get()
    assert [tokens for _kind, tokens in filled(pool)] == [3_870_967, 10_000_000]
    assert PoolMember.objects.get().joined_at == at("2026-10-20 00:00")
    assert use(node, subscriber, "e1", 10, time=at("2026-10-25 12:00"), now=NOON) == 10
    assert use(node, subscriber, "e2", 10, time=at("2026-10-19 23:59"), now=NOON) == 0


@pytest.mark.usefixtures("sold")
def test_a_membership_of_before_bounds_how_far_back_a_new_one_reaches(
    account: Account, subscriber: Subscriber, stranger: Subscriber
) -> None:
    subscribe(stranger)
    foreign = Pool.objects.get()
    join(foreign, subscriber, now=at("2026-11-03 00:00"))
    left_at = at("2026-11-05 00:00")
    pools.leave(pool_id=foreign.pk, subscriber_id=subscriber.pk, actor="c", now=left_at)
    subscribe(subscriber, starts=at("2026-11-01 00:00"))
    rows = PoolMember.objects.filter(subscriber=subscriber).order_by("joined_at")
    assert [row.joined_at for row in rows] == [at("2026-11-03 00:00"), left_at]


@pytest.mark.usefixtures("sold")
def test_a_plan_of_next_month_opens_its_pool_at_once_and_fills_it_then(
    subscriber: Subscriber,
) -> None:
    subscription = subscribe(subscriber, starts=DECEMBER)
    pool = Pool.objects.get()
    assert filled(pool) == []
    subscribing.renew_due(now=DECEMBER)
    assert filled(pool) == [("plan", 10_000_000)]
    assert Subscription.objects.get(pk=subscription.pk).pool == pool


@pytest.mark.usefixtures("sold")
def test_members_who_wait_are_opened_once_the_purchase_has_committed(
    node: Node,
    subscriber: Subscriber,
    neighbour: Subscriber,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    pool = pools.create_pool(
        account_id=subscriber.account_id, name="w", kind="family", now=NOON - HOUR
    )
    join(pool, neighbour, now=NOON - HOUR)
    use(node, neighbour, "e1", 1, time=NOON - SECOND)
    profile = ChargingProfile.objects.get(subscriber=neighbour)
    assert profile.blocked == "quota_exhausted"
    with django_capture_on_commit_callbacks(execute=True):
        subscribe(subscriber)
    profile.refresh_from_db()
    assert profile.blocked == ""


@pytest.mark.usefixtures("sold")
def test_the_terms_of_the_plan_bind_its_buyer_alone(
    subscriber: Subscriber, neighbour: Subscriber, tmp_path: Path
) -> None:
    plan = FAMILY.replace("beyond: stop", "beyond: payg").replace(
        "    pool:", '    payg_price_per_million: "4.00"\n    payg_cap_tokens: 9\n    pool:'
    )
    catalogue.load(path=file(tmp_path, plan=plan, pack=BOOSTER), now=NOON)
    subscribe(subscriber)
    join(Pool.objects.get(), neighbour)
    beyond = ChargingProfile.objects.order_by("subscriber_id").values_list("beyond", flat=True)
    assert list(beyond) == ["payg", "stop"]


def test_a_plan_without_a_pool_is_as_it_was(tmp_path: Path, subscriber: Subscriber) -> None:
    catalogue.load(path=file(tmp_path), now=BORN)
    catalogue.load(path=file(tmp_path, plan=PLAN + "    pool: none\n"), now=NOON)
    assert PlanVersion.objects.filter(plan__code="token-9.9").count() == 1
    assert subscribe(subscriber).pool is None
    assert boost(subscriber).pool is None
    assert Bucket.objects.filter(subscriber=subscriber, pool=None).count() == 2


@pytest.mark.parametrize(
    "plan",
    [
        PLAN + "    pool: friends\n",
        PLAN.replace("beyond: stop", "beyond: payg").replace("10_000_000", "0")
        + '    payg_price_per_million: "4.00"\n    payg_cap_tokens: 9\n    pool: family\n',
    ],
    ids=["unknown", "no tokens"],
)
def test_a_pool_that_cannot_be_meant_is_refused(tmp_path: Path, db: None, plan: str) -> None:
    with pytest.raises(CatalogueRefused, match="pool"):
        catalogue.load(path=file(tmp_path, plan=plan), now=BORN)


# --- at once


@pytest.mark.usefixtures("sold")
@pytest.mark.django_db(transaction=True)
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
@pytest.mark.django_db(transaction=True)
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


@pytest.mark.django_db(transaction=True)
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
