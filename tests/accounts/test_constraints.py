"""Attacks on what the database itself must refuse, whatever the program does."""

from datetime import datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import ApiKey, NumberAssignment, Subscriber, SubscriberTransition

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE accounts_subscribertransition SET actor = 'nobody'",
        "UPDATE accounts_subscribertransition SET reason = reason",
        "DELETE FROM accounts_subscribertransition",
    ],
)
def test_transitions_are_append_only(subscriber: Subscriber, attack: str) -> None:
    with (
        pytest.raises(IntegrityError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(attack)
    assert subscriber.transitions.count() == 2


def test_a_transition_without_an_actor_is_refused(subscriber: Subscriber, noon: datetime) -> None:
    with pytest.raises(IntegrityError):
        SubscriberTransition.objects.create(
            subscriber=subscriber, from_state="active", to_state="suspended", actor="", reason="r",
            at=noon,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("msisdn", "13900000001"), ("msisdn", "+0123456"), ("state", "asleep"),
     ("msisdn", "+8613900000001")],
)  # fmt: skip
def test_a_subscriber_out_of_order_is_refused(
    subscriber: Subscriber, neighbour: Subscriber, field: str, value: str
) -> None:
    with pytest.raises(IntegrityError):
        Subscriber.objects.filter(id=neighbour.id).update(**{field: value})


@pytest.mark.parametrize(("start", "hours"), [(0, None), (-2, 3), (1, 1), (-1, None)])
def test_two_subscribers_never_hold_one_number_at_once(
    subscriber: Subscriber, neighbour: Subscriber, noon: datetime, start: int, hours: int | None
) -> None:
    NumberAssignment.objects.filter(subscriber=neighbour).delete()
    valid_from = noon + start * HOUR
    with pytest.raises(IntegrityError):
        NumberAssignment.objects.create(
            subscriber=neighbour, msisdn=subscriber.msisdn, valid_from=valid_from,
            valid_until=None if hours is None else valid_from + hours * HOUR,
        )  # fmt: skip


def test_the_end_of_an_assignment_is_the_start_of_the_next(
    subscriber: Subscriber, neighbour: Subscriber, noon: datetime
) -> None:
    NumberAssignment.objects.filter(subscriber=neighbour).delete()
    NumberAssignment.objects.create(
        subscriber=neighbour, msisdn=subscriber.msisdn, valid_from=noon - HOUR, valid_until=noon
    )


def test_a_subscriber_never_holds_two_numbers_at_once(
    subscriber: Subscriber, noon: datetime
) -> None:
    with pytest.raises(IntegrityError):
        NumberAssignment.objects.create(
            subscriber=subscriber, msisdn="+8613900000055", valid_from=noon + HOUR
        )


def test_an_empty_or_reversed_assignment_is_refused(subscriber: Subscriber, noon: datetime) -> None:
    for end in (noon, noon - HOUR):
        with pytest.raises(IntegrityError), transaction.atomic():
            NumberAssignment.objects.filter(subscriber=subscriber).update(valid_until=end)


@pytest.mark.parametrize(
    ("kind", "owned"), [("subscriber", False), ("staff", True), ("node", True)]
)
def test_a_key_whose_owner_does_not_fit_its_kind_is_refused(
    subscriber: Subscriber, noon: datetime, kind: str, owned: bool
) -> None:
    with pytest.raises(IntegrityError):
        ApiKey.objects.create(
            kind=kind, public_id="akx", secret_hash="0" * 64, created_at=noon,
            subscriber=subscriber if owned else None,
        )  # fmt: skip
