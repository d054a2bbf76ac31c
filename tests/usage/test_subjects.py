"""Whose usage it is: by number, id or key, at the time of use."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction

from accounts import keys, lifecycle
from accounts.models import Account, ApiKey, NumberVersion, Subscriber
from usage import ingest
from usage.models import Node, UsageEvent
from usage.remembering import Memory
from usage.resolving import Numbers, Subjects

from .conftest import BORN, HOUR, INSTANT, NOON, codes, event, make_subscriber, send

pytestmark = pytest.mark.django_db(transaction=True)
NUMBER, OTHER = "+8613900000001", "+8613900000009"


@pytest.fixture(autouse=True, params=["read", "remembered"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Memory | None:
    """Whoever counts may remember who holds which number."""
    if request.param == "read":
        return None
    request.getfixturevalue("transactional_db")
    NumberVersion.objects.update_or_create(id=1, defaults={"version": 7})
    memory = Memory()
    monkeypatch.setattr(ingest, "count_all", partial(ingest.count_all, memory=memory))
    return memory


def holder(node: Node, subject: str, at: datetime = NOON) -> int | None:
    """The subscriber an event is counted for; None when it is refused."""
    name = f"e{UsageEvent.objects.count()}"
    result = send(node, event(name, 1, subject=subject, at=at), now=NOON + HOUR)
    if result.tally.accepted:
        return UsageEvent.objects.get(event_id=name).subscriber_id
    assert codes(result) == [(0, "unknown_subscriber")]
    return None


def test_a_subject_is_a_number_an_id_or_a_keys_public_id(node: Node, bare: Subscriber) -> None:
    key, token = keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=bare.pk, now=BORN)
    for subject in (NUMBER, str(bare.pk), key.public_id):
        assert holder(node, subject) == bare.pk
    for subject in ("13900000001", f"0{bare.pk}", str(bare.pk + 1), token, f" {NUMBER}", "٣"):
        assert holder(node, subject) is None


def test_a_revoked_keys_usage_is_still_its_owners(node: Node, bare: Subscriber) -> None:
    key, _token = keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=bare.pk, now=BORN)
    keys.revoke(key_id=key.pk, now=NOON - HOUR)
    assert holder(node, key.public_id) == bare.pk


def test_a_nodes_or_staff_members_key_is_no_subject(node: Node) -> None:
    key, _token = keys.issue_key(kind="staff", scopes=["accounts:read"], now=BORN)
    assert holder(node, key.public_id) is None
    assert holder(node, ApiKey.objects.get(node_key__node=node).public_id) is None


def test_after_a_number_change_each_number_is_the_holders_of_its_time(
    node: Node, bare: Subscriber
) -> None:
    changed = NOON - HOUR
    lifecycle.change_number(subscriber_id=bare.pk, msisdn=OTHER, actor="c", reason="r", now=changed)
    for subject, at in (
        (NUMBER, changed - INSTANT),
        (OTHER, changed),
        (NUMBER, changed),  # nobody has it since, so it is its last holder's
        (OTHER, changed - INSTANT),  # before its first holder had it, its first holder's
    ):
        assert holder(node, subject, at) == bare.pk


def test_a_number_given_to_another_is_the_new_holders_from_that_instant(
    node: Node, account: Account, bare: Subscriber
) -> None:
    gone, given = NOON - 2 * HOUR, NOON - HOUR
    lifecycle.terminate(subscriber_id=bare.pk, actor="c", reason="r", now=gone)
    heir = lifecycle.create_subscriber(
        account_id=account.pk, msisdn=NUMBER, actor="c", reason="r", now=given
    )
    assert holder(node, NUMBER, gone - INSTANT) == bare.pk
    assert holder(node, NUMBER, given - INSTANT) == bare.pk  # between both: the last one
    assert holder(node, NUMBER, given) == heir.pk


@pytest.mark.parametrize("days", [1, 61])
def test_late_usage_finds_the_holder_of_then(
    node: Node, account: Account, bare: Subscriber, days: int
) -> None:
    lifecycle.terminate(subscriber_id=bare.pk, actor="c", reason="r", now=NOON - HOUR)
    heir = lifecycle.create_subscriber(
        account_id=account.pk, msisdn=NUMBER, actor="c", reason="r", now=NOON
    )
    assert heir.pk != bare.pk
    assert holder(node, NUMBER, NOON - timedelta(days=days)) == bare.pk


def test_a_neighbours_number_is_the_neighbours(
    node: Node, account: Account, bare: Subscriber
) -> None:
    neighbour = make_subscriber(account, OTHER)
    assert (holder(node, NUMBER), holder(node, OTHER)) == (bare.pk, neighbour.pk)


def test_a_number_is_never_its_former_holders_after_it_changed_hands(
    node: Node, bare: Subscriber, account: Account
) -> None:
    changed = NOON - HOUR
    assert holder(node, NUMBER) == bare.pk
    lifecycle.terminate(subscriber_id=bare.pk, actor="c", reason="r", now=changed)
    assert holder(node, NUMBER) == bare.pk  # nobody else has had it so far
    second = lifecycle.create_subscriber(
        account_id=account.pk, msisdn=NUMBER, actor="c", reason="r", now=changed + HOUR / 2
    )
    assert holder(node, NUMBER) == second.pk
    assert holder(node, NUMBER, changed) == bare.pk
    assert holder(node, OTHER) is None
    third = make_subscriber(account, OTHER)
    assert holder(node, OTHER) == third.pk


def test_a_number_is_nobodys_again_whose_assignment_never_began(
    node: Node, bare: Subscriber
) -> None:
    lifecycle.change_number(subscriber_id=bare.pk, msisdn=OTHER, actor="c", reason="r", now=NOON)
    assert holder(node, OTHER, NOON) == bare.pk
    lifecycle.terminate(subscriber_id=bare.pk, actor="c", reason="r", now=NOON)
    assert holder(node, OTHER, NOON) is None


def test_a_holder_that_is_rolled_back_is_not_remembered(node: Node, account: Account) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert holder(node, OTHER) is None
        first = make_subscriber(account, OTHER)
        assert holder(node, OTHER) == first.pk
        raise ZeroDivisionError
    assert holder(node, OTHER) is None
    second = make_subscriber(account, OTHER)
    assert holder(node, OTHER) == second.pk


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE accounts_numberassignment SET subscriber_id = %(other)s WHERE msisdn = %(number)s",
        "UPDATE accounts_numberassignment SET msisdn = '+86130' WHERE msisdn = %(number)s",
        "DELETE FROM accounts_numberassignment WHERE msisdn = %(number)s",
    ],
)
def test_a_holder_that_is_mended_by_hand_is_not_remembered(
    node: Node, bare: Subscriber, account: Account, change: str
) -> None:
    other = make_subscriber(account, OTHER)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM accounts_numberassignment WHERE msisdn = %s", [OTHER])
    assert holder(node, NUMBER) == bare.pk
    with connection.cursor() as cursor:
        cursor.execute(change, {"number": NUMBER, "other": other.pk})
    assert holder(node, NUMBER) == (other.pk if "subscriber_id" in change else None)


def test_what_is_remembered_is_not_read_again(
    node: Node, bare: Subscriber, memory: Memory | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    honest = Subjects._read_holders

    def read(self: Subjects, cursor: Any, msisdns: Sequence[str]) -> Any:
        asked.extend(msisdns)
        return honest(self, cursor, msisdns)

    monkeypatch.setattr(Subjects, "_read_holders", read)
    for _turn in range(3):
        assert holder(node, NUMBER) == bare.pk
    assert asked == [NUMBER] * (3 if memory is None else 1)
    lifecycle.suspend(subscriber_id=bare.pk, actor="c", reason="r", now=NOON)
    make_subscriber(bare.account, OTHER)  # a new number is no change
    assert holder(node, NUMBER) == bare.pk
    assert asked == [NUMBER] * (4 if memory is None else 1)


def test_after_a_restore_in_place_no_number_is_remembered(
    node: Node, account: Account, bare: Subscriber, memory: Memory | None
) -> None:
    """It takes the version back, so that the next changes count on to one that is known."""
    assert holder(node, NUMBER) == bare.pk
    other = make_subscriber(account, OTHER)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE kept ON COMMIT DROP AS TABLE accounts_numberversion;"
            "TRUNCATE accounts_numberversion;"
            "INSERT INTO accounts_numberversion SELECT id, version - 1 FROM kept"
        )
        cursor.execute("DELETE FROM accounts_numberassignment WHERE msisdn = %s", [OTHER])
        cursor.execute(
            "SET LOCAL session_replication_role = replica;"
            "UPDATE accounts_numberassignment SET subscriber_id = %s WHERE msisdn = %s",
            [other.pk, NUMBER],
        )
    assert holder(node, NUMBER) == other.pk


class FakeServer:
    """Tells a version."""

    version = 1
    started = NOON

    def execute(self, _statement: str, **_more: Any) -> "FakeServer":
        return self

    def fetchone(self) -> Any:
        return self.version, self.started


def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    server, numbers = FakeServer(), Numbers()
    stamp, _known = numbers.known(server)
    server.version = 2  # another thread hears of it first
    assert numbers.known(server)[1] == {}
    numbers.learn(stamp, {NUMBER: (1, None)})
    assert numbers.known(server)[1] == {}


def test_what_another_server_told_is_forgotten() -> None:
    """As after a failover, which may have lost the last changes, and counts on from there."""
    server, numbers = FakeServer(), Numbers()
    numbers.learn(numbers.known(server)[0], {NUMBER: (1, None)})
    assert numbers.known(server)[1] == {NUMBER: (1, None)}
    server.started = NOON + HOUR
    assert numbers.known(server)[1] == {}


def test_no_more_numbers_are_remembered_than_there_is_room_for() -> None:
    server, numbers = FakeServer(), Numbers(most=3)
    stamp, _known = numbers.known(server)
    for number in range(10):
        numbers.learn(stamp, {str(number): (number, None)})
        assert len(numbers.known(server)[1]) <= 3
