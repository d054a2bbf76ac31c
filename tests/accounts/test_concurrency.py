"""Real threads on PostgreSQL: what two clerks do in the same instant happens once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from django.db import connection

from accounts import keys, lifecycle
from accounts.lifecycle import IllegalTransition, NumberInUse
from accounts.models import Account, ApiKey, NumberAssignment, Subscriber, User

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.django_db(transaction=True)


def at_once(times: int, act: Callable[[int], object]) -> list[object]:
    """Run act(0), act(1)… in threads that start together; refusals are returned as their code."""
    barrier = Barrier(times)

    def one(index: int) -> object:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=10)
            return act(index)
        except (IllegalTransition, NumberInUse, keys.TooManyKeys) as refusal:
            return refusal.code
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def test_two_suspends_at_once_are_one_transition(subscriber: Subscriber, noon: datetime) -> None:
    def suspend(index: int) -> str:
        return lifecycle.suspend(
            subscriber_id=subscriber.id, actor=f"clerk {index}", reason="r", now=noon + HOUR
        ).state

    assert sorted(map(str, at_once(4, suspend))) == ["illegal_transition"] * 3 + ["suspended"]
    assert subscriber.transitions.filter(to_state="suspended").count() == 1


def test_one_number_created_by_many_at_once_has_one_holder(
    account: Account, noon: datetime
) -> None:
    def create(index: int) -> str:
        return lifecycle.create_subscriber(
            account_id=account.id, msisdn="13900000033", actor="clerk", reason="r", now=noon
        ).state

    assert sorted(map(str, at_once(4, create))) == ["created"] + ["number_in_use"] * 3
    assert Subscriber.objects.count() == User.objects.count() == NumberAssignment.objects.count()
    assert Subscriber.objects.count() == 1


def test_two_changing_to_one_number_at_once_leave_the_loser_as_it_was(
    subscriber: Subscriber, neighbour: Subscriber, noon: datetime
) -> None:
    people = [subscriber, neighbour]

    def change(index: int) -> str:
        return lifecycle.change_number(
            subscriber_id=people[index].id, msisdn="13900000044", actor="clerk", reason="r",
            now=noon + HOUR,
        ).state  # fmt: skip

    assert sorted(map(str, at_once(2, change))) == ["active", "number_in_use"]
    held = NumberAssignment.objects.filter(valid_until=None).values_list("msisdn", flat=True)
    living = Subscriber.objects.values_list("msisdn", flat=True)
    assert sorted(held) == sorted(living)
    assert "+8613900000044" in held


def test_keys_made_at_once_do_not_pass_the_limit(subscriber: Subscriber, noon: datetime) -> None:
    for _ in range(keys.MAX_LIVING_KEYS - 1):
        keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.id, now=noon)

    def issue(index: int) -> str:
        keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.id, now=noon)
        return "made"

    assert sorted(map(str, at_once(3, issue))) == ["made", "too_many_keys", "too_many_keys"]
