"""What a member's session holds of a pool lies within its cap, and is kept for that session."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import Account, Subscriber
from usage import pools, proof
from usage.models import ChargingProfile, Pool, PoolUsage

from .conftest import START, event
from .quota_calls import amounts, create, release, update
from .test_pools import fill, join

pytestmark = pytest.mark.usefixtures("clock_at_noon", "way")
URL = "/api/v1/usage/events"


@pytest.fixture
def pool(account: Account) -> Pool:
    return pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)


def report(client: APIClient, *events: dict[str, Any]) -> None:
    answer = client.post(URL, list(events), format="json")
    assert answer.json()["accepted"] == len(events)


def used(who: Subscriber) -> int:
    return sum(row.mt for row in PoolUsage.objects.filter(subscriber_id=who.pk)) // 1000


@pytest.mark.parametrize("cap", [{"cycle": 100}, {"day": 100}], ids=["cycle", "day"])
@pytest.mark.django_db(transaction=True)
def test_what_a_session_holds_is_kept_for_it_within_the_cap(
    collector: APIClient, bare: Subscriber, pool: Pool, cap: dict[str, Any]
) -> None:
    bucket = fill(pool, 1000)
    join(pool, bare, **cap)
    ref = create(collector, "s1", requested=60).json()["ref"]
    report(collector, event("beside", 70))
    assert (used(bare), amounts(bucket)) == (40, (960, 60))
    assert ChargingProfile.objects.get(subscriber=bare).blocked == ""
    body = update(collector, ref, 1, event("held", 60), requested=1).json()
    assert (body["granted"], body["result"]) == (0, "QUOTA_LIMIT_REACHED")
    assert (used(bare), amounts(bucket)) == (100, (900, 0))
    assert ChargingProfile.objects.get(subscriber=bare).blocked == "quota_exhausted"
    assert proof.verify() == []


@pytest.mark.django_db(transaction=True)
def test_what_is_given_back_can_be_used_within_the_cap_again(
    collector: APIClient, bare: Subscriber, pool: Pool
) -> None:
    fill(pool, 1000)
    join(pool, bare, cycle=100)
    first = create(collector, "s1", requested=60).json()["ref"]
    second = create(collector, "s2", requested=100).json()
    assert second["granted"] == 40
    # More than it was granted: what the first one holds stays for that.
    body = update(collector, second["ref"], 1, event("e2", 50), requested=10).json()
    assert (body["granted"], used(bare)) == (0, 40)
    release(collector, first, 1, event("e1", 20))
    assert used(bare) == 60
    report(collector, event("e3", 50))
    assert used(bare) == 100
    assert proof.verify() == []
