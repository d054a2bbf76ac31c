"""What time does to sessions: abandoned holds go back once, late usage counts, answers are
forgotten."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
import time_machine
from django.db import connection
from rest_framework.test import APIClient

from accounts.models import Subscriber
from usage import proof, supervising, tasks
from usage.models import Bucket, QuotaAnswer, QuotaSession

from .conftest import INSTANT, NOON, event, give
from .quota_calls import amounts, create, release, update
from .test_charging import payg

TIME = timedelta(seconds=600)  # twice the validity
WEEK = timedelta(days=7)

Clock = time_machine.Traveller


def test_an_abandoned_hold_goes_back_after_twice_the_validity_and_late_usage_is_charged(
    collector: APIClient, subscriber: Subscriber, month: Bucket, clock_at_noon: Clock
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    assert supervising.expire_abandoned(now=NOON + TIME - INSTANT) == 0
    assert amounts(month) == (1000, 400)
    assert supervising.expire_abandoned(now=NOON + TIME) == 1
    assert amounts(month) == (1000, 0)
    assert QuotaSession.objects.get().state == "expired"
    clock_at_noon.move_to(NOON + TIME + TIME / 2)
    body = release(collector, ref, 1, event("e1", 120)).json()
    assert (body["late_usage"], body["accepted"]) == (True, 1)
    assert amounts(month) == (880, 0)
    assert proof.verify() == []


def test_an_update_is_a_sign_of_life(
    collector: APIClient, subscriber: Subscriber, month: Bucket, clock_at_noon: Clock
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    clock_at_noon.move_to(NOON + TIME / 2)
    update(collector, ref, 1, requested=300)
    assert supervising.expire_abandoned(now=NOON + TIME) == 0
    assert supervising.expire_abandoned(now=NOON + TIME + TIME / 2) == 1
    assert amounts(month) == (1000, 0)


def test_an_expired_session_may_go_on(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    with time_machine.travel(NOON, tick=False):
        ref = create(collector, requested=400).json()["ref"]
    supervising.expire_abandoned(now=NOON + TIME)
    with time_machine.travel(NOON + TIME, tick=False):
        body = update(collector, ref, 1, event("e1", 100), requested=200).json()
    assert (body["late_usage"], body["granted"]) == (True, 200)
    assert amounts(month) == (900, 200)
    assert supervising.expire_abandoned(now=NOON + TIME + TIME) == 1
    assert amounts(month) == (900, 0)


@pytest.mark.usefixtures("clock_at_noon")
def test_what_was_held_beyond_the_buckets_goes_back_too(
    collector: APIClient, bare: Subscriber
) -> None:
    payg(bare, cap=500)
    for name in ("s1", "s2"):
        assert create(collector, name, requested=250).json()["granted"] == 250
    assert supervising.expire_abandoned(now=NOON + TIME) == 2
    bare.charging_profile.refresh_from_db()
    assert bare.charging_profile.reserved_payg_mt == 0
    assert proof.verify() == []


@pytest.mark.django_db(transaction=True)
def test_a_hold_goes_back_once_however_many_look_after_it(
    collector: APIClient, subscriber: Subscriber, month: Bucket, clock_at_noon: Clock
) -> None:
    for name in range(8):
        create(collector, f"s{name}", requested=100)

    def look(_: int) -> int:
        try:
            return supervising.expire_abandoned(now=NOON + TIME)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(look, range(4))) == 8
    assert amounts(month) == (1000, 0)
    assert proof.verify() == []


@pytest.mark.usefixtures("clock_at_noon")
def test_answers_are_kept_for_a_week_and_sessions_as_long_as_an_answer(
    collector: APIClient, subscriber: Subscriber, clock_at_noon: Clock
) -> None:
    ref = create(collector, requested=10).json()["ref"]
    create(collector, "s2", requested=10)
    clock_at_noon.move_to(NOON + INSTANT)
    release(collector, ref, 1)
    assert supervising.forget_old(now=NOON + WEEK) == 0
    assert supervising.forget_old(now=NOON + WEEK + INSTANT) == 2
    assert QuotaAnswer.objects.count() == 1
    assert QuotaSession.objects.count() == 2  # one has an answer, one still holds
    supervising.expire_abandoned(now=NOON + TIME)
    assert supervising.forget_old(now=NOON + WEEK + 2 * INSTANT) == 1
    assert list(QuotaSession.objects.values_list("session", flat=True)) == ["s2"]


@pytest.mark.usefixtures("clock_at_noon")
def test_a_bounded_run_leaves_the_rest_to_the_next(collector: APIClient, bare: Subscriber) -> None:
    bucket = give(bare, 100)
    for name in range(5):
        create(collector, f"s{name}", requested=10)
    assert supervising.expire_abandoned(now=NOON + TIME, limit=3) == 3
    assert supervising.expire_abandoned(now=NOON + TIME, limit=3) == 2
    assert amounts(bucket) == (100, 0)


def test_a_run_gives_back_all_that_is_abandoned(
    collector: APIClient,
    bare: Subscriber,
    clock_at_noon: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many a step takes: else more might be abandoned than ever go back."""
    bucket = give(bare, 100)
    for name in range(5):
        create(collector, f"s{name}", requested=10)
    clock_at_noon.move_to(NOON + TIME)
    step = partial(supervising.expire_abandoned, limit=2)
    monkeypatch.setattr(supervising, "expire_abandoned", step)
    tasks.expire_sessions()
    assert amounts(bucket) == (100, 0)
