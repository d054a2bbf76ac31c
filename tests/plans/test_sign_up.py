"""Signing up: account, subscriber and plan in one step, once per number."""

from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts import lifecycle
from accounts.models import Account, NumberAssignment, Subscriber
from plans.models import Charge, Subscription
from plans.refusals import AlreadySubscribed
from plans.subscribing import sign_up

from .conftest import NOON, at, close_connection

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shipped")]
NUMBER = "+8613900000009"


def sign(
    number: str = NUMBER, plan: str = "token-9.9", account_id: int | None = None
) -> Subscriber:
    return sign_up(
        msisdn=number,
        plan_code=plan,
        starts_at=at("2026-10-01 00:00"),
        actor="clerk",
        now=NOON,
        account_id=account_id,
        name="Li",
    )


def test_a_new_number_gets_account_subscriber_and_plan() -> None:
    subscriber = sign("13900000009")
    assert (subscriber.msisdn, subscriber.state) == (NUMBER, "active")
    assert subscriber.account.name == "Li"
    assert Subscription.objects.get().version.plan.code == "token-9.9"
    assert Charge.objects.count() == 2
    # Usage of the months that were made good finds its subscriber.
    assert NumberAssignment.objects.get().valid_from == at("2026-10-01 00:00")


def test_a_repeat_returns_the_same_subscriber_and_sells_nothing_more() -> None:
    assert sign().pk == sign().pk
    assert (Account.objects.count(), Subscription.objects.count(), Charge.objects.count()) == (
        1,
        1,
        2,
    )


def test_another_plan_or_account_for_a_held_number_is_refused(account: Account) -> None:
    sign()
    with pytest.raises(AlreadySubscribed):
        sign(plan="token-29.9")
    with pytest.raises(AlreadySubscribed):
        sign(account_id=account.pk)


def test_a_subscriber_made_before_is_activated_and_subscribed(account: Account) -> None:
    created = lifecycle.create_subscriber(
        account_id=account.pk,
        msisdn=NUMBER,
        actor="clerk",
        reason="new",
        now=at("2026-01-01 00:00"),
    )
    assert sign(account_id=account.pk).pk == created.pk
    assert Account.objects.count() == 1
    assert Subscription.objects.get().subscriber_id == created.pk


def test_the_number_of_a_terminated_subscriber_signs_up_anew() -> None:
    former = sign()
    lifecycle.terminate(subscriber_id=former.pk, actor="clerk", reason="left", now=NOON)
    again = sign_up(msisdn=NUMBER, plan_code="token-9.9", starts_at=NOON, actor="clerk", now=NOON)
    assert again.pk != former.pk


@pytest.mark.django_db(transaction=True)
def test_the_same_sign_up_four_times_at_once_happens_once() -> None:
    def run(_: int) -> int:
        try:
            return sign().pk
        finally:
            close_connection()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(4)))) == 1
    assert (Account.objects.count(), Subscription.objects.count()) == (1, 1)


def test_the_command_prints_the_id_alone_and_is_repeatable() -> None:
    printed = []
    for _ in range(2):
        out = StringIO()
        call_command("create_subscriber", NUMBER, plan="token-9.9", stdout=out)
        printed.append(out.getvalue())
    assert printed == [f"{Subscriber.objects.get().pk}\n"] * 2


def test_the_command_refuses_with_one_line() -> None:
    with pytest.raises(CommandError, match="nothing is not on sale"):
        call_command("create_subscriber", NUMBER, plan="nothing")
    with pytest.raises(CommandError, match="write it as 2026-10-01"):
        call_command("create_subscriber", NUMBER, plan="token-9.9", starts="soon")
    assert not Subscriber.objects.exists()
