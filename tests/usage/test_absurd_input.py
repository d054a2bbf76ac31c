"""Numbers, days and amounts beyond all sense get an answer that says so, never a failure."""

from datetime import date, timedelta
from typing import Any

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Account, Subscriber
from config.errors import DomainError
from usage import movements, periods, pools, proof
from usage.ledger import MOST_MT, BucketFull, Grant
from usage.models import Bucket, Node, Pool
from usage.normalising import MAX_TOKENS

from .conftest import END, NOON, START, client_of, counts, event, give, left, send

HUGE = [2**63, 10**30]
SCOPES = ["adjustments:write", "accounts:read", "accounts:write"]
WHY: dict[str, Any] = {"actor": "clerk", "reason": "goodwill", "now": NOON}


@pytest.fixture
def clerk(db: None, clock_at_noon: object) -> APIClient:
    _key, token = keys.issue_key(kind="staff", scopes=SCOPES, name="crm", now=NOON)
    return client_of(token)


@pytest.fixture
def app(subscriber: Subscriber, clock_at_noon: object) -> APIClient:
    _key, token = keys.issue_key(kind="subscriber", subscriber_id=subscriber.pk, now=NOON)
    return client_of(token)


@pytest.fixture
def pool(account: Account) -> Pool:
    return pools.create_pool(account_id=account.pk, name="Wang", kind="family", now=START)


def ask(client: APIClient, verb: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    call = getattr(client, verb)
    answer = call(f"/api/v1/{path}", body, format="json", headers={"idempotency-key": "k"})
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("number", HUGE)
def test_a_number_beyond_64_bits_names_nobody(
    clerk: APIClient, month: Bucket, pool: Pool, number: int
) -> None:
    taken = {"bucket": month.pk, "to_subscriber": number, "mt": 1, "reason": "r"}
    members = f"pools/{pool.pk}/members"
    unknown = (404, "unknown_subscriber")
    assert ask(clerk, "post", "transfers", taken) == unknown
    assert ask(clerk, "post", members, {"subscriber_id": number}) == unknown
    assert ask(clerk, "patch", f"{members}/{number}", {"day_cap": 1}) == unknown
    assert ask(clerk, "delete", f"{members}/{number}", {}) == unknown
    limit = {"window": "day", "unit": "tokens", "amount": 1}
    assert ask(clerk, "put", f"subscribers/{number}/limits", limit) == unknown


@pytest.mark.parametrize(
    "query",
    [
        "usage?from=0001-01-01&to=0001-01-03",
        "usage?from=9999-12-30&to=9999-12-31",
        "balance?as_of=0001-01-01T00:00:00%2B08:00",
    ],
)
def test_days_at_the_ends_of_the_calendar_are_refused(app: APIClient, query: str) -> None:
    answer = app.get(f"/api/v1/me/{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_period")


def test_a_period_to_rate_again_lies_in_the_calendar(clerk: APIClient) -> None:
    asked = {"model": "glm-5", "from": "0001-01-01", "to": "2026-01-01", "reason": "r"}
    assert ask(clerk, "post", "reratings", asked) == (400, "invalid_period")


@pytest.mark.parametrize("day", [periods.FIRST_DAY, periods.LAST_DAY])
def test_the_first_and_the_last_day_can_be_counted_with(day: date) -> None:
    assert periods.parse_day(day.isoformat()) == day
    assert periods.day_start(day) < periods.day_end(day)
    assert periods.cycle_end(periods.parse_cycle(f"{day:%Y-%m}")) > periods.day_start(day)
    outside = day + timedelta(days=-1 if day == periods.FIRST_DAY else 1)
    with pytest.raises(periods.InvalidPeriod):
        periods.parse_day(outside.isoformat())


def test_an_adjustment_fills_a_bucket_to_its_limit_and_no_further(
    clerk: APIClient, month: Bucket
) -> None:
    body = {"bucket": month.pk, "reason": "r"}
    room = MOST_MT - month.granted_mt
    assert ask(clerk, "post", "adjustments", body | {"mt": MOST_MT + 1}) == (400, "invalid")
    assert ask(clerk, "post", "adjustments", body | {"mt": room + 1}) == (409, "bucket_full")
    movements.adjust(bucket_id=month.pk, amount_mt=room, key="k", **WHY)
    assert left(month) == MOST_MT
    with pytest.raises(BucketFull):
        movements.adjust(bucket_id=month.pk, amount_mt=1, key="one more", **WHY)
    assert proof.verify() == []


def test_a_transfer_leaves_a_full_bucket_as_it_was(month: Bucket, neighbour: Subscriber) -> None:
    theirs = Bucket.objects.get(subscriber=neighbour)
    room = MOST_MT - theirs.granted_mt
    movements.adjust(bucket_id=theirs.pk, amount_mt=room, key="fill", **WHY)
    named: dict[str, Any] = {"bucket_id": month.pk, "to_subscriber_id": neighbour.pk} | WHY
    with pytest.raises(BucketFull):
        movements.transfer(amount_mt=1, key="t", **named)
    assert (left(month), left(theirs)) == (1_000_000, MOST_MT)
    movements.transfer(amount_mt=1, key="t", into_new_bucket=True, **named)
    assert proof.verify() == []


@pytest.mark.django_db(transaction=True)
def test_a_grant_is_no_larger_than_a_bucket_may_be(bare: Subscriber, pool: Pool) -> None:
    with pytest.raises(DomainError):
        give(bare, MOST_MT // 1000 + 1)
    terms: dict[str, Any] = {"valid_from": START, "valid_until": END, "kind": "pack"}
    wanted = Grant(pool_id=pool.pk, name="a", name_en="a", amount_mt=MOST_MT + 1, key="p", **terms)
    with pytest.raises(DomainError):
        pools.grant_to_pool(wanted=wanted, now=NOON)
    assert not Bucket.objects.exists()


def test_the_sums_of_many_requests_of_the_largest_size_stay_within_64_bits(
    node: Node, subscriber: Subscriber, month: Bucket
) -> None:
    """300 of them, charged by ten and forty; a report of all 10,000 fits as well."""
    usage = {"prompt_tokens": MAX_TOKENS, "completion_tokens": MAX_TOKENS}
    events = [event(f"e{number}", usage=usage, model="heavy") for number in range(300)]
    result = send(node, *events)
    each_mt = MAX_TOKENS * (10_000 + 40_000)
    assert counts(result) == (300, 0, 0, 0)
    assert result.tally.accepted_mt == 300 * each_mt
    assert result.tally.uncovered_mt == 300 * each_mt - 1_000_000
    assert settings.USAGE_MAX_EVENTS * each_mt < 2**63
    assert left(month) == 0 and proof.verify() == []
