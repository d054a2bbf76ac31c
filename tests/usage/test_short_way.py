"""What goes the short way, what is passed on to the view, and who waits for a turn."""

import gzip
import json
import threading
import time
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import Subscriber
from usage.api import short_way, ways
from usage.api.short_way import Environ, InTurn, Turns
from usage.api.ways import in_front_of
from usage.models import Node, UsageBatch

from .conftest import event
from .short_way import environ, post

OK, PASSED_ON = 200, 0


@pytest.fixture
def token(node_and_token: tuple[Node, str], subscriber: Subscriber, clock_at_noon: object) -> str:
    return node_and_token[1]


def events(count: int) -> bytes:
    return json.dumps([event(f"e{number}", 1) for number in range(count)]).encode()


def test_a_numbered_report_keeps_its_number(token: str) -> None:
    assert post(token, events(1), query="sequence=7")[0] == OK
    assert UsageBatch.objects.get().sequence == 7


def test_a_large_report_goes_a_way_of_its_own(token: str) -> None:
    body = events(51) + b" " * 2**16
    status, answer = post(token, body, query="sequence=7")
    assert (status, json.loads(answer)["accepted"]) == (OK, 51)
    assert json.loads(post(token, body)[1])["duplicate"] == 51
    assert [one.sequence for one in UsageBatch.objects.order_by("id")] == [7, None]


def test_a_large_report_that_does_not_go_well_is_the_views(token: str, settings: Settings) -> None:
    assert post(token + "x", events(51))[0] == PASSED_ON
    assert post(token, events(51) + b"]")[0] == PASSED_ON
    settings.USAGE_MAX_EVENTS = 50
    assert post(token, events(51))[0] == PASSED_ON
    assert not UsageBatch.objects.exists()


@pytest.mark.parametrize(
    "query", ["sequence=-1", "sequence=x", "sequence=", "sequence=1&a=2", "sequence=" + "9" * 19]
)
def test_a_query_that_is_more_than_a_number_is_the_views(token: str, query: str) -> None:
    assert post(token, events(1), query=query)[0] == PASSED_ON
    assert not UsageBatch.objects.exists()


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (events(1) + b" " * 2**16, {}),
        (gzip.compress(events(1)), {"HTTP_CONTENT_ENCODING": "gzip"}),
        (events(1), {"REQUEST_METHOD": "PUT"}),
        (events(1), {"CONTENT_LENGTH": ""}),
        (events(1), {"CONTENT_LENGTH": "1" * 5000}),
        (events(1), {"CONTENT_TYPE": "text/csv"}),
        (events(1), {"HTTP_AUTHORIZATION": "Basic eDp5"}),
        (events(1), {"PATH_INFO": "/api/v1/usage/events/"}),
    ],
)
def test_what_is_not_small_and_plain_is_the_views(
    token: str, body: bytes, more: dict[str, Any]
) -> None:
    assert post(token, body, **more)[0] == PASSED_ON
    assert not UsageBatch.objects.exists()


def test_where_https_is_asked_for_only_secure_reports_go_the_short_way(
    token: str, settings: Settings
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert post(token, events(1))[0] == PASSED_ON
    assert post(token, events(1), **{"wsgi.url_scheme": "https"})[0] == OK
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert post(token, events(1), HTTP_X_FORWARDED_PROTO="http")[0] == PASSED_ON
    assert post(token, events(1), HTTP_X_FORWARDED_PROTO="https, http")[0] == OK


def test_the_short_way_is_counted_like_the_view(token: str, client: Client) -> None:
    label = 'tokenpack_requests_total{method="POST",route="api/v1/usage/events",status="200"}'

    def counted() -> float:
        for line in client.get("/metrics").content.decode().splitlines():
            if line.startswith(label):
                return float(line.rpartition(" ")[2])
        return 0

    before = counted()
    post(token, events(1))
    assert counted() == before + 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/usage/events", events(1), "200 OK"),
        ("/api/v1/usage/events", events(51), "200 OK"),
        ("/api/v1/quota/sessions", b"{}", "503 Service Unavailable"),
    ],
)
def test_reports_need_no_turn(
    token: str, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes, status: str
) -> None:
    """The one other connection is taken by a request of Django's that does not end."""
    monkeypatch.setattr(short_way, "TURN_SECONDS", 0.1)
    told: list[str] = []

    def django(passed: Environ, _start_response: Any) -> list[bytes]:
        assert passed["PATH_INFO"] == "/slow"
        application(environ(token, body, path=path), lambda line, _headers: told.append(line))
        return []

    application = in_front_of(django, connections=4)
    application(environ(token, b"", path="/slow"), lambda *_: None)
    assert told == [status]


def test_no_more_get_in_than_there_are_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_way, "TURN_SECONDS", 0.2)
    inside, done = threading.Semaphore(0), threading.Event()

    def slow(_environ: Environ, start_response: Any) -> list[bytes]:
        inside.release()
        done.wait(timeout=10)
        start_response("200 OK", [])
        return [b"done"]

    application = InTurn(slow, Turns(2))
    threads = [
        threading.Thread(target=application, args=({}, lambda *_: None)) for _number in range(2)
    ]
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=5)
    started: list[Any] = []
    before = time.monotonic()
    body = application({}, lambda *start: started.extend(start))
    assert time.monotonic() - before < 5
    assert started[0] == "503 Service Unavailable"
    assert ("Retry-After", "2") in started[1]
    assert json.loads(b"".join(body))["code"] == "unavailable"
    done.set()
    for thread in threads:
        thread.join(timeout=5)
    assert b"".join(application({}, lambda *_: None)) == b"done"


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_large_body_is_read_when_there_is_room(
    token: str, monkeypatch: pytest.MonkeyPatch, is_counted: bool
) -> None:
    """There is none while another one is counted, nor while the view looks at it."""
    monkeypatch.setattr(short_way, "TURN_SECONDS", 0.1)
    monkeypatch.setattr(ways, "LARGE_AT_ONCE", 1)
    body = events(short_way.SMALL_BYTES // 100)
    first, second = environ(token, body), environ(token, body)
    told: list[str] = []

    def meanwhile() -> None:
        application(second, lambda line, _headers: told.append(line))

    def count(_call: Any) -> Any:
        if is_counted:
            meanwhile()
        return (OK, {}) if is_counted else None

    def view(_environ: Environ, start_response: Any) -> list[bytes]:
        meanwhile()
        start_response("200 OK", [])
        return []

    monkeypatch.setattr(ways, "_large", count)
    application = in_front_of(view, connections=4)
    application(first, lambda line, _headers: told.append(line))
    assert told == ["503 Service Unavailable", "200 OK"]
    assert (first["wsgi.input"].tell(), second["wsgi.input"].tell()) == (len(body), 0)
