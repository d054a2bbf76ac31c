"""Whose usage it is: by number, id or key, at the time of use."""

from datetime import datetime, timedelta

import pytest

from accounts import keys, lifecycle
from accounts.models import Account, ApiKey, Subscriber
from usage.models import Node, UsageEvent

from .conftest import BORN, HOUR, INSTANT, NOON, codes, event, make_subscriber, send

NUMBER, OTHER = "+8613900000001", "+8613900000009"


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
