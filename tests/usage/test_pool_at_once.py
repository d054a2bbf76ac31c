"""Members of one pool who use it in the same instant: the pool's lock is all that parts them."""

import pytest
from django.db import connection, transaction

from accounts.models import Account
from usage import ledger, pools, proof
from usage.ledger import Grant
from usage.models import Bucket, Node, PoolUsage

from .conftest import END, HOUR, NOON, START, event, give, make_subscriber, send
from .test_concurrency import at_once
from .test_set_aside import LOCK_POOLS, reported_while_held

MEMBERS = 8
ROUNDS = 12


@pytest.mark.django_db(transaction=True)
def test_members_at_once_take_each_token_of_the_pool_once(account: Account, node: Node) -> None:
    pool = pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)
    numbers = [f"+861390000020{number}" for number in range(MEMBERS)]
    for number in numbers:
        pools.join(
            pool_id=pool.pk,
            subscriber_id=make_subscriber(account, number).pk,
            actor="clerk",
            now=START,
        )
    half = MEMBERS * ROUNDS * 10 // 2
    wanted = Grant(
        pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=half * 1000, key="p",
        valid_from=START, valid_until=END,
    )  # fmt: skip
    bucket = pools.grant_to_pool(wanted=wanted, now=NOON)[0]

    def use(index: int) -> tuple[int, int]:
        debited = uncovered = 0
        for turn in range(ROUNDS):
            tally = send(node, event(f"{index}-{turn}", 10, subject=numbers[index])).tally
            debited += tally.debited_mt
            uncovered += tally.uncovered_mt
        return debited, uncovered

    answers = at_once(MEMBERS, use)
    assert sum(debited for debited, _uncovered in answers) == half * 1000
    assert sum(uncovered for _debited, uncovered in answers) == half * 1000
    assert Bucket.objects.get(pk=bucket.pk).remaining_mt == 0
    assert sum(PoolUsage.objects.values_list("mt", flat=True)) == half * 1000
    assert proof.verify() == []


@pytest.mark.django_db(transaction=True)
def test_a_close_waits_for_a_pool_without_holding_one_of_a_later_place(account: Account) -> None:
    """What closes are a bucket of the second pool and one of a member of the first pool."""
    first, second = (
        pools.create_pool(account_id=account.pk, name=name, kind="family", now=START)
        for name in ("first", "second")
    )
    member = make_subscriber(account, "+8613900000200")
    pools.join(pool_id=first.pk, subscriber_id=member.pk, actor="clerk", now=START)
    give(member, 10)
    wanted = Grant(
        pool_id=second.pk, kind="plan", name="p", name_en="p", amount_mt=1000, key="p",
        valid_from=START, valid_until=END,
    )  # fmt: skip
    pools.grant_to_pool(wanted=wanted, now=NOON)
    now = END + HOUR
    with (
        reported_while_held(
            LOCK_POOLS, [first.pk], lambda: ledger.close_due_buckets(now=now)
        ) as closed,
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(f"{LOCK_POOLS} NOWAIT", [[second.pk]])
    assert closed.result(timeout=20) == 2
    assert proof.verify() == []
