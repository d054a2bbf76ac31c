from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts import keys
from accounts.models import Subscriber, User
from config import clock


def run(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("create_key", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_a_subscribers_key_stands_alone_on_stdout(subscriber: Subscriber) -> None:
    out, err = run("subscriber", "13900000001", "--name", "agent", "--days", "2")
    assert out.count("\n") == 1
    key = keys.authenticate(token=out.strip(), now=clock.now())
    assert (key.subscriber_id, key.name) == (subscriber.id, "agent")
    assert key.expires_at is not None
    assert key.public_id in err
    assert out.strip() not in err


def test_a_staff_key_has_just_the_scopes_asked_for_and_acts_for_its_user(db: None) -> None:
    User.objects.create(username="li", is_staff=True)
    out, _ = run("staff", "--scopes", "accounts:read", "assurance:read", "--user", "li")
    key = keys.authenticate(token=out.strip(), now=clock.now())
    assert key.scopes == ["accounts:read", "assurance:read"]
    assert key.user is not None
    assert key.user.username == "li"


@pytest.mark.parametrize(
    "words",
    [
        ["subscriber", "13900000099"],
        ["subscriber", "12"],
        ["staff"],
        ["staff", "--scopes", "usage:write"],
        ["staff", "--scopes", "accounts:read", "--user", "nobody"],
        [],
    ],
)
def test_what_cannot_be_made_is_an_error_in_words(db: None, words: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*words)
