from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from accounts import lifecycle
from accounts.lifecycle import IllegalTransition, NumberInUse, UnknownAccount, UnknownSubscriber
from accounts.models import Account, Subscriber, SubscriberTransition

HOUR = timedelta(hours=1)
VERBS = {
    "activate": lifecycle.activate,
    "suspend": lifecycle.suspend,
    "resume": lifecycle.resume,
    "terminate": lifecycle.terminate,
}
LEGAL = {
    ("created", "activate"): "active",
    ("active", "suspend"): "suspended",
    ("suspended", "resume"): "active",
    ("created", "terminate"): "terminated",
    ("active", "terminate"): "terminated",
    ("suspended", "terminate"): "terminated",
}
ROAD_TO = {
    "created": [],
    "active": ["activate"],
    "suspended": ["activate", "suspend"],
    "terminated": ["terminate"],
}


def step(subscriber: Subscriber, verb: str, now: datetime, reason: str = "asked") -> Subscriber:
    return VERBS[verb](subscriber_id=subscriber.id, actor="clerk", reason=reason, now=now)


def create(account: Account, msisdn: str, now: datetime, since: datetime | None = None):  # type: ignore[no-untyped-def]
    return lifecycle.create_subscriber(
        account_id=account.id, msisdn=msisdn, actor="clerk", reason="new", now=now,
        number_from=since,
    )  # fmt: skip


@pytest.fixture
def followed() -> Iterator[list[tuple[str, str]]]:
    seen: list[tuple[str, str]] = []

    def follower(subscriber: Subscriber, now: datetime) -> None:
        seen.append((subscriber.state, subscriber.msisdn))

    lifecycle.FOLLOWERS.append(follower)
    yield seen
    lifecycle.FOLLOWERS.remove(follower)


def test_a_new_subscriber_is_created_with_number_user_and_audit(
    account: Account, noon: datetime
) -> None:
    subscriber = create(account, "13900000009", noon, since=noon - 24 * HOUR)
    subscriber.refresh_from_db()
    assert subscriber.state == "created"
    assert subscriber.user is not None
    assert not subscriber.user.has_usable_password()
    number = subscriber.numbers.get()
    assert (number.msisdn, number.valid_until) == ("+8613900000009", None)
    assert number.valid_from == noon - 24 * HOUR
    audit = subscriber.transitions.get()
    assert (audit.from_state, audit.to_state, audit.actor) == ("", "created", "clerk")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", ROAD_TO)
def test_only_legal_steps_happen_and_each_is_audited(
    account: Account, noon: datetime, state: str, verb: str
) -> None:
    subscriber = create(account, "13900000009", noon)
    for earlier in ROAD_TO[state]:
        step(subscriber, earlier, noon + HOUR)
    before = subscriber.transitions.count()

    if (state, verb) in LEGAL:
        after = step(subscriber, verb, noon + 2 * HOUR, reason="because")
        assert after.state == LEGAL[state, verb]
        audit = subscriber.transitions.latest("id")
        assert (audit.from_state, audit.to_state) == (state, after.state)
        assert (audit.actor, audit.reason, audit.at) == ("clerk", "because", noon + 2 * HOUR)
    else:
        with pytest.raises(IllegalTransition) as refusal:
            step(subscriber, verb, noon + 2 * HOUR)
        assert refusal.value.extra == {"state": state}
        assert subscriber.transitions.count() == before


def test_followers_hear_of_creation_and_of_every_change(
    account: Account, noon: datetime, followed: list[tuple[str, str]]
) -> None:
    subscriber = create(account, "13900000009", noon)
    step(subscriber, "activate", noon + HOUR)
    lifecycle.change_number(
        subscriber_id=subscriber.id, msisdn="13900000008", actor="clerk", reason="lost",
        now=noon + 2 * HOUR,
    )  # fmt: skip
    assert followed == [
        ("created", "+8613900000009"),
        ("active", "+8613900000009"),
        ("active", "+8613900000008"),
    ]


def test_a_failing_follower_undoes_the_step(subscriber: Subscriber, noon: datetime) -> None:
    def fails(subscriber: Subscriber, now: datetime) -> None:
        raise RuntimeError("no")

    lifecycle.FOLLOWERS.append(fails)
    try:
        with pytest.raises(RuntimeError):
            step(subscriber, "suspend", noon + HOUR)
    finally:
        lifecycle.FOLLOWERS.remove(fails)
    subscriber.refresh_from_db()
    assert subscriber.state == "active"
    assert not subscriber.transitions.filter(to_state="suspended").exists()


def test_a_living_number_is_refused_to_another(
    subscriber: Subscriber, account: Account, noon: datetime
) -> None:
    users = type(subscriber.user).objects.count()  # type: ignore[union-attr]
    with pytest.raises(NumberInUse):
        create(account, "13900000001", noon + HOUR)
    assert Subscriber.objects.count() == 1
    assert type(subscriber.user).objects.count() == users  # type: ignore[union-attr]


def test_the_number_of_a_terminated_subscriber_goes_to_another_without_overlap(
    subscriber: Subscriber, account: Account, noon: datetime
) -> None:
    step(subscriber, "terminate", noon + HOUR)
    assert subscriber.numbers.get().valid_until == noon + HOUR
    with pytest.raises(NumberInUse):  # the former holder had it at that time
        create(account, "13900000001", noon + 2 * HOUR, since=noon + HOUR - HOUR / 60)
    heir = create(account, "13900000001", noon + 2 * HOUR, since=noon + HOUR)
    assert heir.numbers.get().valid_from == noon + HOUR


def test_a_number_never_in_force_leaves_no_assignment(account: Account, noon: datetime) -> None:
    early = create(account, "13900000009", noon, since=noon + 24 * HOUR)
    step(early, "terminate", noon + HOUR)
    assert not early.numbers.exists()
    create(account, "13900000009", noon + HOUR)


def test_a_number_change_keeps_the_history_and_is_audited(
    subscriber: Subscriber, account: Account, noon: datetime
) -> None:
    changed = lifecycle.change_number(
        subscriber_id=subscriber.id, msisdn="13900000077", actor="clerk", reason="lost phone",
        now=noon + HOUR,
    )  # fmt: skip
    assert (changed.id, changed.msisdn) == (subscriber.id, "+8613900000077")
    held = list(subscriber.numbers.order_by("valid_from").values_list("msisdn", "valid_until"))
    assert held == [("+8613900000001", noon + HOUR), ("+8613900000077", None)]
    audit = subscriber.transitions.latest("id")
    assert audit.reason == "number +8613900000001 -> +8613900000077: lost phone"
    create(account, "13900000001", noon + HOUR)  # the former number is free


def test_a_number_change_repeated_or_refused_changes_nothing(
    subscriber: Subscriber, neighbour: Subscriber, noon: datetime
) -> None:
    audits = subscriber.transitions.count()
    for msisdn, refusal in (("13900000001", None), (neighbour.msisdn, NumberInUse)):
        asked = {
            "subscriber_id": subscriber.id, "msisdn": msisdn, "actor": "clerk", "reason": "r",
            "now": noon + HOUR,
        }  # fmt: skip
        if refusal is None:
            lifecycle.change_number(**asked)  # type: ignore[arg-type]
        else:
            with pytest.raises(refusal):
                lifecycle.change_number(**asked)  # type: ignore[arg-type]
    subscriber.refresh_from_db()
    assert subscriber.msisdn == "+8613900000001"
    assert subscriber.numbers.get().valid_until is None
    assert subscriber.transitions.count() == audits


def test_a_terminated_subscriber_keeps_the_last_number_and_gets_no_other(
    subscriber: Subscriber, noon: datetime
) -> None:
    step(subscriber, "terminate", noon + HOUR)
    with pytest.raises(IllegalTransition):
        lifecycle.change_number(
            subscriber_id=subscriber.id, msisdn="13900000077", actor="clerk", reason="r",
            now=noon + 2 * HOUR,
        )  # fmt: skip


def test_unknown_accounts_and_subscribers_are_told_so(account: Account, noon: datetime) -> None:
    with pytest.raises(UnknownSubscriber):
        lifecycle.suspend(subscriber_id=0, actor="clerk", reason="r", now=noon)
    with pytest.raises(UnknownAccount):
        lifecycle.create_subscriber(
            account_id=0, msisdn="13900000001", actor="clerk", reason="r", now=noon
        )
    assert not SubscriberTransition.objects.exists()
