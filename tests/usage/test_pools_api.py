"""What staff ask of pools by the API: what is not named stays, what is repeated happens once."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Account, Subscriber
from usage import pools
from usage.models import UNCAPPED, Pool

from .conftest import NOON, START, client_of
from .test_pools import join


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
