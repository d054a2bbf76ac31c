from datetime import datetime, timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from accounts import keys, lifecycle
from accounts.keys import InvalidKey, KeyOwnerGone, TooManyKeys, UnknownScope
from accounts.models import ApiKey, Subscriber, User

MINUTE = timedelta(minutes=1)


def issue(subscriber: Subscriber, noon: datetime, **more: object) -> tuple[ApiKey, str]:
    return keys.issue_key(
        kind="subscriber",
        subscriber_id=subscriber.id,
        now=noon,
        **more,  # type: ignore[arg-type]
    )


def test_the_secret_is_shown_once_and_stored_nowhere(
    subscriber: Subscriber, noon: datetime
) -> None:
    key, token = issue(subscriber, noon)
    public_id, _, secret = token.partition(".")
    assert public_id == key.public_id
    assert public_id.startswith("ak")
    assert len(public_id) == 22
    assert len(secret) >= 43
    stored = ApiKey.objects.filter(id=key.id).values().get()
    assert secret not in str(stored)


def test_a_key_authenticates_in_one_query_with_its_subscriber(
    subscriber: Subscriber, noon: datetime, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    key, token = issue(subscriber, noon)
    keys.authenticate(token=token, now=noon)
    with django_assert_num_queries(1):
        found = keys.authenticate(token=token, now=noon + MINUTE / 2)
        assert found == key
        assert found.subscriber is not None
        assert found.subscriber.state == "active"


def test_the_last_use_is_written_at_most_once_a_minute(
    subscriber: Subscriber, noon: datetime
) -> None:
    key, token = issue(subscriber, noon)
    for used, written in ((0, 0), (59, 0), (60, 60), (61, 60)):
        keys.authenticate(token=token, now=noon + timedelta(seconds=used))
        key.refresh_from_db()
        assert key.last_used_at == noon + timedelta(seconds=written)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "x",
        lambda token: token.partition(".")[0],
        lambda token: "ak" + "a" * 20 + "." + token.partition(".")[2],
        lambda token: "\x00." + token,
        lambda token: "é" * 500,
    ],
)
def test_a_wrong_token_is_refused(subscriber: Subscriber, noon: datetime, spoil) -> None:  # type: ignore[no-untyped-def]
    _, token = issue(subscriber, noon)
    with pytest.raises(InvalidKey):
        keys.authenticate(token=spoil(token), now=noon)


def test_a_revoked_key_is_refused_at_once_and_keeps_its_first_time(
    subscriber: Subscriber, noon: datetime
) -> None:
    key, token = issue(subscriber, noon)
    keys.revoke(key_id=key.id, now=noon)
    keys.revoke(key_id=key.id, now=noon + MINUTE)
    key.refresh_from_db()
    assert key.revoked_at == noon
    with pytest.raises(InvalidKey):
        keys.authenticate(token=token, now=noon)


def test_a_key_is_good_until_just_before_it_expires(subscriber: Subscriber, noon: datetime) -> None:
    _, token = issue(subscriber, noon, expires_at=noon + MINUTE)
    keys.authenticate(token=token, now=noon + MINUTE - timedelta(microseconds=1))
    with pytest.raises(InvalidKey):
        keys.authenticate(token=token, now=noon + MINUTE)


def test_the_key_of_staff_that_left_is_refused(db: None, noon: datetime) -> None:
    user = User.objects.create(username="li", is_staff=True)
    _, token = keys.issue_key(kind="staff", user_id=user.id, scopes=["invoices:read"], now=noon)
    keys.authenticate(token=token, now=noon)
    user.is_active = False
    user.save()
    with pytest.raises(InvalidKey):
        keys.authenticate(token=token, now=noon)


def test_scopes_fit_the_kind_of_key(subscriber: Subscriber, noon: datetime) -> None:
    assert issue(subscriber, noon)[0].scopes == ["me:read", "me:write"]
    assert issue(subscriber, noon, scopes=["me:read"])[0].scopes == ["me:read"]
    node, _ = keys.issue_key(kind="node", now=noon)
    assert node.scopes == ["usage:write", "quota:write", "feed:read"]
    for kind, scopes in (("node", ["me:read"]), ("staff", ["usage:write"]), ("staff", [])):
        with pytest.raises(UnknownScope):
            keys.issue_key(kind=kind, scopes=scopes, now=noon)


def test_living_keys_are_limited_and_revoked_ones_do_not_count(
    subscriber: Subscriber, noon: datetime
) -> None:
    made = [issue(subscriber, noon)[0] for _ in range(keys.MAX_LIVING_KEYS)]
    with pytest.raises(TooManyKeys):
        issue(subscriber, noon)
    keys.revoke(key_id=made[0].id, now=noon)
    issue(subscriber, noon)


def test_a_terminated_subscriber_gets_no_key(subscriber: Subscriber, noon: datetime) -> None:
    lifecycle.terminate(subscriber_id=subscriber.id, actor="clerk", reason="r", now=noon + MINUTE)
    with pytest.raises(KeyOwnerGone):
        issue(subscriber, noon)
