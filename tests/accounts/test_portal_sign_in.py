"""Signing in: a code to a living number, and one face for all the others."""

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.test import Client
from pytest_django import Settings

from accounts import lifecycle
from accounts.models import Subscriber

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_cache(settings: Settings) -> None:
    """Rate limits of this test alone: workers share the real cache."""
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "own"}
    }
    from django.core.cache import cache

    cache.clear()


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def visitor(clock: time_machine.Traveller) -> Client:
    return Client()


def ask(visitor: Client, number: str) -> str:
    """Type the number; the page that follows."""
    answer = visitor.post("/sign-in/", {"phone": number}, follow=True)
    return answer.content.decode()


def code_in(caplog: pytest.LogCaptureFixture) -> str:
    found = re.findall(r"\b\d{6}\b", caplog.text)
    return str(found[-1]) if found else ""


def enter(visitor: Client, code: str) -> bool:
    visitor.post("/sign-in/code/", {"code": code, "action": "verify"})
    return "_auth_user_id" in visitor.session


def test_a_subscriber_signs_in_with_the_code_that_was_sent(
    visitor: Client, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ask(visitor, "139 0000-0001")
    assert enter(visitor, code_in(caplog))
    assert visitor.session["_auth_user_id"] == str(subscriber.user_id)


def test_unknown_and_terminated_numbers_see_the_same_page_and_get_no_message(
    visitor: Client, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hidden = re.compile(r'csrfmiddlewaretoken" value="\w+"|139 0000 000\d')
    living = hidden.sub("", ask(visitor, "13900000001"))
    caplog.clear()
    unknown = hidden.sub("", ask(Client(), "13900000009"))
    lifecycle.terminate(subscriber_id=subscriber.pk, actor="clerk", reason="left", now=NOW)
    terminated = hidden.sub("", ask(Client(), "13900000001"))
    assert living == unknown == terminated
    assert "[SMS]" not in caplog.text


def test_the_code_arrives_in_the_subscribers_language(
    visitor: Client, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ask(visitor, "13900000001")
    assert "登录验证码" in caplog.text


def test_five_wrong_codes_spoil_the_right_one(
    visitor: Client, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ask(visitor, "13900000001")
    right = code_in(caplog)
    wrong = "000000" if right != "000000" else "111111"
    assert not any(enter(visitor, wrong) for _ in range(5))
    assert not enter(visitor, right)


@pytest.mark.parametrize(("seconds", "works"), [(299, True), (301, False)])
def test_a_code_is_valid_for_five_minutes(
    visitor: Client,
    subscriber: Subscriber,
    clock: time_machine.Traveller,
    caplog: pytest.LogCaptureFixture,
    seconds: int,
    works: bool,
) -> None:
    caplog.set_level(logging.INFO)
    ask(visitor, "13900000001")
    clock.shift(timedelta(seconds=seconds))
    assert enter(visitor, code_in(caplog)) is works


def test_a_fourth_code_within_a_minute_is_refused(
    visitor: Client, subscriber: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(4):
        ask(Client(), "13900000001")
    assert caplog.text.count("登录验证码") == 3


@pytest.mark.parametrize(
    ("debug", "clock_file", "embedded", "known"),
    [
        (True, "", True, True),
        (False, "var/clock", True, True),
        (False, "", True, False),
        (True, "", False, False),
    ],
)
def test_the_known_code_works_in_a_demonstration_on_the_embedded_database_only(
    visitor: Client,
    subscriber: Subscriber,
    settings: Settings,
    debug: bool,
    clock_file: str,
    embedded: bool,
    known: bool,
) -> None:
    settings.DEMO_CODE, settings.DEBUG = "246810", debug
    settings.CLOCK_FILE, settings.EMBEDDED_POSTGRES = clock_file, embedded
    ask(visitor, "13900000001")
    assert enter(visitor, "246810") is known


def test_what_is_no_number_is_told_so_and_sends_nothing(
    visitor: Client, db: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert "手机号码格式不正确" in ask(visitor, "hello")
    assert "[SMS]" not in caplog.text


def test_signing_out_ends_the_session_and_needs_a_post(
    visitor: Client, subscriber: Subscriber
) -> None:
    assert subscriber.user is not None
    visitor.force_login(subscriber.user)
    assert visitor.get("/sign-out/").status_code == 405
    visitor.post("/sign-out/")
    assert "_auth_user_id" not in visitor.session


@pytest.mark.parametrize("path", ["/auth/signup/", "/auth/login/", "/accounts/signup/"])
def test_nobody_can_sign_up_or_use_a_password_here(visitor: Client, db: None, path: str) -> None:
    assert visitor.get(path).status_code == 404
    assert visitor.post(path, {"phone": "+8613900000008"}).status_code == 404
