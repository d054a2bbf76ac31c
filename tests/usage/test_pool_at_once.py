"""Members of one pool who use it in the same instant: the pool's lock is all that parts them."""

import pytest

from accounts.models import Account
from usage import pools, proof
from usage.ledger import Grant
from usage.models import Bucket, Node, PoolUsage

from .conftest import END, NOON, START, event, make_subscriber, send
from .test_concurrency import at_once

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
