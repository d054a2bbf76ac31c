"""The life of accounts and subscribers: created, active, suspended, terminated, and the number.

Every verb locks the subscriber's row first, so steps of one life stand in line; what a step may
follow is checked under that lock, and each step leaves an append-only SubscriberTransition.
"""

from collections.abc import Callable
from datetime import datetime

from django.db import IntegrityError, transaction

from accounts.models import Account, NumberAssignment, Subscriber, SubscriberTransition, User
from accounts.numbers import normalise_msisdn
from config.errors import DomainError

State = Subscriber.State
Follower = Callable[[Subscriber, datetime], None]

# Called inside the transaction, after creation and after every change of state or number. Rooms
# above this one append theirs when the process starts, since imports point only downwards.
FOLLOWERS: list[Follower] = []

_UNIQUE_VIOLATION = "23505"
_EXCLUSION_VIOLATION = "23P01"


class IllegalTransition(DomainError):
    """The subscriber's state does not allow this step."""

    code = "illegal_transition"
    status = 409
    title = "Not possible in this state"


class NumberInUse(DomainError):
    """Another subscriber holds the number."""

    code = "number_in_use"
    status = 409
    title = "Number in use"


class UnknownAccount(DomainError):
    """There is no such account."""

    code = "unknown_account"
    status = 404
    title = "Unknown account"


class UnknownSubscriber(DomainError):
    """There is no such subscriber."""

    code = "unknown_subscriber"
    status = 404
    title = "Unknown subscriber"


def open_account(
    *, kind: str, name: str, now: datetime, tax_number: str = "", email: str = ""
) -> Account:
    """Open an account; `kind` is `person` or `enterprise`."""
    return Account.objects.create(
        kind=Account.Kind(kind), name=name, tax_number=tax_number, email=email, created_at=now
    )


@transaction.atomic
def create_subscriber(
    *,
    account_id: int,
    msisdn: str,
    actor: str,
    reason: str,
    now: datetime,
    number_from: datetime | None = None,
    language: str = "zh-hans",
) -> Subscriber:
    """Create a subscriber that holds `msisdn` from `number_from` (or now) and may sign in.

    Raises UnknownAccount, InvalidNumber, and NumberInUse when another subscriber holds the number
    now or held it after `number_from`.
    """
    number = normalise_msisdn(msisdn)
    if not Account.objects.filter(id=account_id).exists():
        raise UnknownAccount(f"There is no account {account_id}; open it first.")
    subscriber = Subscriber(account_id=account_id, msisdn=number, language=language, created_at=now)
    _hold(subscriber, number=number, since=number_from or now)
    user = User(username=f"subscriber-{subscriber.id}", date_joined=now)
    user.set_unusable_password()  # subscribers sign in with a one-time code only
    user.save()
    subscriber.user = user
    subscriber.save(update_fields=["user"])
    _record(subscriber, from_state="", actor=actor, reason=reason, now=now)
    return subscriber


@transaction.atomic
def activate(*, subscriber_id: int, actor: str, reason: str, now: datetime) -> Subscriber:
    """created -> active. Raises IllegalTransition, UnknownSubscriber."""
    return _step(subscriber_id, {State.CREATED}, State.ACTIVE, actor, reason, now)


@transaction.atomic
def suspend(*, subscriber_id: int, actor: str, reason: str, now: datetime) -> Subscriber:
    """active -> suspended. Raises IllegalTransition, UnknownSubscriber."""
    return _step(subscriber_id, {State.ACTIVE}, State.SUSPENDED, actor, reason, now)


@transaction.atomic
def resume(*, subscriber_id: int, actor: str, reason: str, now: datetime) -> Subscriber:
    """suspended -> active. Raises IllegalTransition, UnknownSubscriber."""
    return _step(subscriber_id, {State.SUSPENDED}, State.ACTIVE, actor, reason, now)


@transaction.atomic
def terminate(*, subscriber_id: int, actor: str, reason: str, now: datetime) -> Subscriber:
    """Any living state -> terminated, for ever. The number is free for another from `now` on."""
    living = {State.CREATED, State.ACTIVE, State.SUSPENDED}
    return _step(subscriber_id, living, State.TERMINATED, actor, reason, now)


@transaction.atomic
def change_number(
    *, subscriber_id: int, msisdn: str, actor: str, reason: str, now: datetime
) -> Subscriber:
    """Give a living subscriber another number from `now` on; balance and history stay.

    A repeat with the number already held changes nothing. Raises InvalidNumber, NumberInUse,
    IllegalTransition (terminated), UnknownSubscriber.
    """
    number = normalise_msisdn(msisdn)
    subscriber = _locked(subscriber_id)
    if subscriber.state == State.TERMINATED:
        raise IllegalTransition(
            f"Subscriber {subscriber_id} is terminated; create a new one for {number}."
        )
    former = subscriber.msisdn
    if former == number:
        return subscriber
    _release(subscriber, now=now)
    subscriber.msisdn = number
    _hold(subscriber, number=number, since=now)
    why = f"number {former} -> {number}: {reason}"
    _record(subscriber, from_state=subscriber.state, actor=actor, reason=why, now=now)
    return subscriber


def _step(
    subscriber_id: int,
    allowed: set[State],
    target: State,
    actor: str,
    reason: str,
    now: datetime,
) -> Subscriber:
    subscriber = _locked(subscriber_id)
    former = subscriber.state
    if former not in allowed:
        raise IllegalTransition(
            f"Subscriber {subscriber_id} is {former} and cannot become {target.value}; "
            f"that needs: {', '.join(sorted(allowed))}.",
            state=former,
        )
    subscriber.state = target
    subscriber.save(update_fields=["state"])
    if target == State.TERMINATED:
        _release(subscriber, now=now)
    _record(subscriber, from_state=former, actor=actor, reason=reason, now=now)
    return subscriber


def _locked(subscriber_id: int) -> Subscriber:
    # NO KEY: rows that merely point at the subscriber may be inserted meanwhile.
    rows = Subscriber.objects.select_for_update(of=("self",), no_key=True)
    subscriber = rows.filter(id=subscriber_id).first()
    if subscriber is None:
        raise UnknownSubscriber(f"There is no subscriber {subscriber_id}.")
    return subscriber


def _hold(subscriber: Subscriber, *, number: str, since: datetime) -> None:
    """Save the subscriber with the number. The constraints decide who holds it, not a look."""
    try:
        with transaction.atomic():
            subscriber.save()
            NumberAssignment.objects.create(subscriber=subscriber, msisdn=number, valid_from=since)
    except IntegrityError as error:
        if _sqlstate(error) not in {_UNIQUE_VIOLATION, _EXCLUSION_VIOLATION}:
            raise
        raise NumberInUse(
            f"{number} belongs to another subscriber at or after {since.isoformat()}; "
            "terminate that one, change its number, or take a later start."
        ) from error


def _release(subscriber: Subscriber, *, now: datetime) -> None:
    """End the assignment in force; one that has not begun was never in force and goes."""
    assignment = subscriber.numbers.filter(valid_until=None).get()
    if assignment.valid_from >= now:
        assignment.delete()
        return
    assignment.valid_until = now
    assignment.save(update_fields=["valid_until"])


def _record(
    subscriber: Subscriber, *, from_state: str, actor: str, reason: str, now: datetime
) -> None:
    SubscriberTransition.objects.create(
        subscriber=subscriber,
        from_state=from_state,
        to_state=subscriber.state,
        actor=actor,
        reason=reason[:500],
        at=now,
    )
    for follower in FOLLOWERS:
        follower(subscriber, now)


def _sqlstate(error: IntegrityError) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)
