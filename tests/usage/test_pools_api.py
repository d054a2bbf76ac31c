"""What staff ask of pools: what is not named stays, a repeat happens once, who is gone is out."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys, lifecycle
from accounts.models import Account, Subscriber
from usage import pools, proof
from usage.models import UNCAPPED, Bucket, Node, Pool, PoolMember

from .conftest import END, HOUR, NOON, SECOND, START, client_of, event, left, send
from .test_pools import fill, join


@pytest.fixture
def pool(account: Account) -> Pool:
    return pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)


@pytest.fixture
def crm(db: None, clock_at_noon: object) -> APIClient:
    scopes = ["accounts:read", "accounts:write", "adjustments:write"]
    _key, token = keys.issue_key(kind="staff", scopes=scopes, name="crm", now=NOON)
    return client_of(token)


def test_a_patch_leaves_the_cap_that_it_does_not_name(
    crm: APIClient, bare: Subscriber, pool: Pool
) -> None:
    join(pool, bare, cycle=100, day=10)

    def patch(**change: Any) -> Any:
        answer = crm.patch(f"/api/v1/pools/{pool.pk}/members/{bare.pk}", change, format="json")
        if answer.status_code != 200:
            return answer.status_code
        return [answer.json()[name] for name in ("cycle_cap_mt", "day_cap_mt")]

    assert patch(cycle_cap=50) == [50_000, 10_000]
    assert patch() == [50_000, 10_000]
    assert patch(day_cap=0) == [50_000, 0]
    assert patch(lift=["day_cap"]) == [50_000, UNCAPPED]
    assert patch(cycle_cap=40, lift=["cycle_cap"]) == 400
    assert patch(lift=["month"]) == 400
    assert patch(day_cap=5, lift=["cycle_cap"]) == [UNCAPPED, 5_000]


def test_a_key_of_a_grant_names_one_grant(crm: APIClient, pool: Pool) -> None:
    asked = {"name": "p", "tokens": 80, "valid_until": END.isoformat(), "reason": "sale"}

    def post(**change: Any) -> tuple[int, Any]:
        answer = crm.post(
            f"/api/v1/pools/{pool.pk}/grants",
            asked | change,
            format="json",
            headers={"idempotency-key": "k"},
        )
        return answer.status_code, answer.json().get("code")

    assert post()[0] == 201
    assert post() == (200, None)
    for change in (
        {"tokens": 81},
        {"valid_until": (END + SECOND).isoformat()},
        {"kind": "promotion"},
        {"name": "q"},
    ):
        assert post(**change) == (409, "grant_reused")
    assert Bucket.objects.get().granted_mt == 80_000


def test_who_is_terminated_is_let_into_no_pool(
    crm: APIClient, bare: Subscriber, pool: Pool
) -> None:
    lifecycle.terminate(subscriber_id=bare.pk, actor="c", reason="r", now=NOON - HOUR)
    answer = crm.post(f"/api/v1/pools/{pool.pk}/members", {"subscriber_id": bare.pk}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "membership_refused")
    assert not PoolMember.objects.exists()


def test_who_is_terminated_draws_on_the_pool_no_more(
    node: Node, bare: Subscriber, pool: Pool
) -> None:
    """A node that has not heard of it yet must not spend what belongs to others."""
    bucket = fill(pool, 100)
    join(pool, bare)
    lifecycle.terminate(subscriber_id=bare.pk, actor="c", reason="r", now=NOON)
    batch = [event("before", 10, at=NOON - SECOND), event("after", 10, at=NOON)]
    tally = send(node, *batch, now=NOON + SECOND).tally
    assert (tally.debited_mt, tally.uncovered_mt) == (10_000, 10_000)
    assert left(bucket) == 90_000
    assert PoolMember.objects.get().left_at == NOON
    assert proof.verify() == []
