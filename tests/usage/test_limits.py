"""Limits besides the plan: windows, keys and rates, all held at reserve."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from rest_framework.test import APIClient

from accounts.keys import issue_key
from accounts.models import ApiKey, Subscriber
from usage import corrections, limits, proof
from usage.models import Node, UsageLimit
from usage.normalising import Counts

from .conftest import BORN, INSTANT, NOON, at, client_of, event, give, send
from .quota_calls import create, release, update

Clock = time_machine.Traveller

MINUTE, DAY, WEEK, MONTH = UsageLimit.Window
TOKENS, REQUESTS = UsageLimit.Unit


@pytest.fixture
def rich(bare: Subscriber) -> Subscriber:
    """A subscriber whose buckets never are the reason."""
    give(bare, 1_000_000, start=BORN, end=at("2028-01-01 00:00"))
    return bare


@pytest.fixture
def key(rich: Subscriber) -> ApiKey:
    return issue_key(kind="subscriber", subscriber_id=rich.pk, now=BORN)[0]


def limit(
    subscriber: Subscriber,
    window: str,
    tokens: int,
    key: ApiKey | None = None,
    *,
    now: datetime = NOON,
) -> None:
    limits.set_limit(
        subscriber_id=subscriber.pk, api_key_id=key.pk if key else None, window=window,
        unit=TOKENS, amount=tokens * 1000, now=now,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("window", "start"),
    [
        (MINUTE, "2026-11-24 12:00"),
        (DAY, "2026-11-24 00:00"),
        (WEEK, "2026-11-23 00:00"),
        (MONTH, "2026-11-01 00:00"),
    ],
)
@pytest.mark.usefixtures("clock_at_noon")
def test_a_limit_counts_from_the_start_of_its_window(
    collector: APIClient, node: Node, rich: Subscriber, window: str, start: str
) -> None:
    limit(rich, window, 1000)
    send(node, event("before", 500, at=at(start) - INSTANT), event("in", 300, at=at(start)))
    body = create(collector, requested=5000).json()
    assert (body["result"], body["granted"]) == ("SUCCESS", 700)
    assert body["limit"] == {"scope": "subscriber", "window": str(window), "tokens": 1000}
    assert body["final"] == {"action": "TERMINATE"}


@pytest.mark.parametrize(
    ("now", "window", "start"),
    [
        ("2026-11-30 00:00", WEEK, "2026-11-30 00:00"),
        ("2026-11-29 23:59", WEEK, "2026-11-23 00:00"),
        ("2026-12-01 00:00", WEEK, "2026-11-30 00:00"),
        ("2026-12-01 00:00", MONTH, "2026-12-01 00:00"),
        ("2026-11-30 23:59", MONTH, "2026-11-01 00:00"),
        ("2026-11-30 23:59", DAY, "2026-11-30 00:00"),
        ("2026-11-30 23:59", MINUTE, "2026-11-30 23:59"),
    ],
)
def test_windows_are_cut_in_the_billing_zone(now: str, window: str, start: str) -> None:
    for moment in (at(now), at(now) + timedelta(seconds=59)):
        assert limits.window_start(window, moment) == at(start)


@pytest.mark.usefixtures("clock_at_noon")
def test_several_limits_hold_at_once_and_the_tightest_decides(
    collector: APIClient, node: Node, rich: Subscriber
) -> None:
    limit(rich, DAY, 1000)
    limit(rich, WEEK, 1500)
    limit(rich, MONTH, 100_000)
    send(node, event("monday", 900, at=at("2026-11-23 10:00")))
    body = create(collector, requested=2000).json()
    assert (body["granted"], body["limit"]["window"]) == (600, "week")


@pytest.mark.usefixtures("clock_at_noon")
def test_what_is_held_counts_and_what_is_given_back_does_not(
    collector: APIClient, rich: Subscriber
) -> None:
    limit(rich, DAY, 1000)
    ref = create(collector, requested=800).json()["ref"]
    assert create(collector, "s2", requested=800).json()["granted"] == 200
    refused = create(collector, "s3", requested=1).json()
    assert (refused["result"], refused["limit"]["window"]) == ("QUOTA_LIMIT_REACHED", "day")
    # Its own former hold is not in a session's way, and usage stays counted after the release.
    assert update(collector, ref, 1, event("e1", 100), requested=700).json()["granted"] == 700
    release(collector, ref, 2)
    assert create(collector, "s4", requested=900).json()["granted"] == 700
    assert proof.verify() == []


@pytest.mark.parametrize("of_key", [False, True])
@pytest.mark.usefixtures("clock_at_noon")
def test_usage_counts_as_it_was_corrected(
    collector: APIClient, node: Node, rich: Subscriber, key: ApiKey, of_key: bool
) -> None:
    limit(rich, DAY, 1000, key if of_key else None)
    yesterday = at("2026-11-24 00:00") - INSTANT
    result = send(
        node,
        event("voided", 600, subject=key.public_id),
        event("more", 100, subject=key.public_id),
        event("less", 300, subject=key.public_id),
        event("yesterday's", 50, subject=key.public_id, at=yesterday),
        event("without the key", 200),
    )
    first = result.batch_id * 16_384
    about: dict[str, Any] = {"actor": "clerk", "reason": "r", "now": NOON}
    corrections.void(event_id=first, key="v", **about)
    for place, tokens in ((1, 150), (2, 20), (3, 900), (4, 230)):
        wanted = Counts(tokens, 0, 0, 0)
        corrections.amend(event_id=first + place, counts=wanted, key=str(place), **about)
    subject = key.public_id if of_key else rich.msisdn
    body = create(collector, subject=subject, requested=5000).json()
    assert body["granted"] == 1000 - 150 - 20 - (0 if of_key else 230)


@pytest.mark.usefixtures("clock_at_noon")
def test_a_limit_of_a_key_holds_for_that_key_alone(
    collector: APIClient, node: Node, rich: Subscriber, key: ApiKey
) -> None:
    limit(rich, DAY, 100, key)
    send(node, event("by number", 500), event("by key", 30, subject=key.public_id))
    held = create(collector, "s1", subject=key.public_id, requested=50).json()
    assert (held["granted"], "limit" in held) == (50, False)
    body = create(collector, "s2", subject=key.public_id, requested=50).json()
    assert (body["granted"], body["limit"]["scope"]) == (20, "key")
    assert create(collector, "s3", requested=5000).json()["granted"] == 5000


@pytest.mark.usefixtures("clock_at_noon")
def test_what_is_left_in_the_buckets_is_no_matter_of_a_wider_limit(
    collector: APIClient, subscriber: Subscriber
) -> None:
    limit(subscriber, DAY, 5000)
    body = create(collector, requested=2000).json()
    assert (body["granted"], body["final"]["action"], "limit" in body) == (1000, "REDIRECT", False)


def test_requests_are_counted_by_the_minute(
    collector: APIClient, rich: Subscriber, clock_at_noon: Clock
) -> None:
    limits.set_limit(subscriber_id=rich.pk, window=MINUTE, unit=REQUESTS, amount=2, now=NOON)
    ref = create(collector, "s1", requested=10).json()["ref"]
    assert update(collector, ref, 1, requested=10).json()["granted"] == 10
    refused = create(collector, "s2", requested=10).json()
    assert (refused["result"], refused["granted"]) == ("QUOTA_LIMIT_REACHED", 0)
    assert refused["limit"] == {"scope": "subscriber", "window": "minute", "requests": 2}
    # A report that asks for nothing, and a release, are no requests.
    assert update(collector, ref, 2, event("e1", 3), requested=0).json()["result"] == "SUCCESS"
    assert release(collector, ref, 3).json()["result"] == "SUCCESS"
    clock_at_noon.move_to(NOON + timedelta(seconds=60) - INSTANT)
    assert create(collector, "s3", requested=10).json()["granted"] == 0
    clock_at_noon.move_to(NOON + timedelta(seconds=60))
    assert create(collector, "s4", requested=10).json()["granted"] == 10


@pytest.mark.usefixtures("clock_at_noon")
def test_a_limit_of_nothing_allows_nothing_and_a_lifted_one_everything(
    collector: APIClient, rich: Subscriber
) -> None:
    limit(rich, DAY, 0)
    assert create(collector, requested=1).json()["result"] == "QUOTA_LIMIT_REACHED"
    limits.remove_limit(subscriber_id=rich.pk, window=DAY, unit=TOKENS)
    assert create(collector, "s2", requested=1).json()["granted"] == 1
    with pytest.raises(limits.NoSuchLimit):
        limits.remove_limit(subscriber_id=rich.pk, window=DAY, unit=TOKENS)


@pytest.mark.usefixtures("clock_at_noon")
def test_a_report_is_never_refused_by_a_limit(
    collector: APIClient, node: Node, rich: Subscriber
) -> None:
    limit(rich, DAY, 10)
    assert send(node, event("e1", 100)).tally.debited_mt == 100_000
    body = create(collector, requested=10, events=[event("e2", 5)]).json()
    assert (body["accepted"], body["granted"]) == (1, 0)


def staff(*scopes: str) -> APIClient:
    return client_of(issue_key(kind="staff", scopes=scopes, now=BORN)[1])


def test_staff_set_see_and_lift_limits(rich: Subscriber, key: ApiKey) -> None:
    url = f"/api/v1/subscribers/{rich.pk}/limits"
    clerk = staff("accounts:read", "accounts:write")
    wanted = {"window": "week", "unit": "tokens", "amount": 5000}
    assert clerk.put(url, wanted).json() == {"key": None} | wanted
    clerk.put(url, wanted | {"amount": 7000})
    clerk.put(url, {"window": "minute", "unit": "requests", "amount": 60})
    limit(rich, DAY, 10, key)
    assert [
        (one["key"], one["window"], one["amount"]) for one in clerk.get(url).json()["limits"]
    ] == [
        (key.public_id, "day", 10),
        (None, "minute", 60),
        (None, "week", 7000),
    ]
    assert clerk.delete(f"{url}?window=week&unit=tokens").status_code == 204
    assert clerk.delete(f"{url}?window=week&unit=tokens").json()["code"] == "limit_not_found"
    assert clerk.delete(url).status_code == 400
    assert clerk.put(url, wanted | {"amount": -1}).status_code == 400
    assert clerk.put(url, wanted | {"window": "year"}).status_code == 400
    assert clerk.put("/api/v1/subscribers/987654321/limits", wanted).status_code == 404
    assert staff("accounts:read").put(url, wanted).status_code == 403
    assert staff("accounts:read").get(url).status_code == 200
    assert APIClient().get(url).status_code == 401


def test_subscribers_limit_their_own_keys_and_no_others(
    rich: Subscriber, key: ApiKey, neighbour: Subscriber
) -> None:
    url = f"/api/v1/me/keys/{key.public_id}/limits"
    mine = client_of(issue_key(kind="subscriber", subscriber_id=rich.pk, now=BORN)[1])
    theirs = client_of(issue_key(kind="subscriber", subscriber_id=neighbour.pk, now=BORN)[1])
    wanted = {"window": "day", "unit": "tokens", "amount": 100}
    assert mine.put(url, wanted).json() == {"key": key.public_id} | wanted
    assert len(mine.get(url).json()["limits"]) == 1
    for answer in (
        theirs.get(url),
        theirs.put(url, wanted),
        theirs.delete(f"{url}?window=day&unit=tokens"),
    ):
        assert answer.status_code == 404
    assert mine.delete(f"{url}?window=day&unit=tokens").status_code == 204


@pytest.mark.parametrize("change", [{"window": "year"}, {"unit": "fen"}, {"amount": -1}])
def test_a_limit_that_means_nothing_is_refused(rich: Subscriber, change: dict[str, Any]) -> None:
    given: dict[str, Any] = {"window": DAY, "unit": TOKENS, "amount": 1, "now": NOON}
    with pytest.raises(limits.LimitRefused):
        limits.set_limit(subscriber_id=rich.pk, **(given | change))


def test_a_key_of_another_cannot_be_limited(key: ApiKey, neighbour: Subscriber) -> None:
    with pytest.raises(limits.LimitRefused):
        limit(neighbour, DAY, 10, key)
