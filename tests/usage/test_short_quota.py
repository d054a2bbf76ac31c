"""Quota sessions by the short way: answered as by the view, and errors are told by the view."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from rest_framework.test import APIClient, ForceAuthClientHandler

from accounts import keys
from accounts.models import Subscriber
from usage import nodes, proof
from usage.models import Bucket, Node, NodeKey, QuotaAnswer, QuotaSession

from .conftest import BORN, NOON, client_of, event
from .quota_calls import SUBJECT, URL, amounts
from .short_way import patched, post

pytestmark = pytest.mark.usefixtures("clock_at_noon")

CREATED, OK, UNAVAILABLE, PASSED_ON = 201, 200, 503, 0
OF_ITS_OWN = re.compile(rb'qs_[0-9a-f]+|"batch":\d+')  # what no other session has
Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def token(node_and_token: tuple[Node, str], subscriber: Subscriber) -> str:
    return node_and_token[1]


def opening(name: str = "s1", **more: Any) -> dict[str, Any]:
    return {"session": name, "sequence": 0, "subject": SUBJECT, "model": "plain"} | more


def ask(token: str, body: Any, path: str = "", **more: Any) -> tuple[int, bytes]:
    """(status, body) by the short way alone; (0, b"") where it passes it on."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post(token, raw, path=URL + path, **more)


def by_view(token: str, body: Any, path: str = "") -> tuple[int, bytes]:
    answer = client_of(token).post(URL + path, body)
    return answer.status_code, answer.content


def conversation(token: str, by: Ask) -> list[tuple[int, bytes]]:
    """The answers to all that a node asks when all goes well."""
    told = [by(token, opening(requested=400)), by(token, opening(requested=400))]
    ref = json.loads(told[0][1])["ref"]
    told.append(by(token, opening("s2", requested=700)))  # less than that is left
    used = {"sequence": 1, "events": [event("e1", 100), event("e2", 5, model="none")]}
    told += [by(token, used | {"requested": 300}, f"/{ref}/update") for _ in range(2)]
    told += [by(token, {"sequence": 2, "events": [event("e3", 50)]}, f"/{ref}/release")]
    told += [by(token, {"sequence": 2, "events": [event("e3", 50)]}, f"/{ref}/release")]
    return [*told, by(token, opening("s3", one_shot=True, events=[event("e4", 7)]))]


def test_each_verb_answers_as_by_the_view(token: str, month: Bucket) -> None:
    with transaction.atomic():
        wanted = conversation(token, by_view)
        left = amounts(month)
        transaction.set_rollback(True)
    told = conversation(token, ask)
    assert [(status, OF_ITS_OWN.sub(b"", body)) for status, body in told] == [
        (status, OF_ITS_OWN.sub(b"", body)) for status, body in wanted
    ]
    assert [status for status, _body in told] == [CREATED] * 3 + [OK] * 4 + [CREATED]
    assert [json.loads(body)["granted"] for _status, body in told] == [
        400, 400, 600, 300, 300, 0, 0, 0,
    ]  # fmt: skip
    assert json.loads(told[2][1])["final"]["action"] == "REDIRECT"
    for first, again in ((0, 1), (3, 4), (5, 6)):
        assert json.loads(told[first][1]) == json.loads(told[again][1])
    assert amounts(month) == left == (1000 - 157, 600)
    assert QuotaAnswer.objects.count() == 5
    assert proof.verify() == []


def test_what_one_way_answered_the_other_repeats(token: str, month: Bucket) -> None:
    first = by_view(token, opening(requested=400))
    status, again = ask(token, opening(requested=400))
    assert (status, json.loads(again)) == (first[0], json.loads(first[1]))
    ref = json.loads(again)["ref"]
    told = ask(token, {"sequence": 1, "requested": 300}, f"/{ref}/update")
    repeated = by_view(token, {"sequence": 1, "requested": 300}, f"/{ref}/update")
    assert (told[0], json.loads(told[1])) == (repeated[0], json.loads(repeated[1]))
    assert amounts(month) == (1000, 300)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("", b"{broken", 400, "unreadable_body"),
        ("", b"\xff", 400, "unreadable_body"),
        ("", opening(requested=-1), 400, "unreadable_body"),
        ("", opening(session=None), 400, "MANDATORY_IE_MISSING"),
        ("", opening(one_shot=True), 400, "MANDATORY_IE_MISSING"),
        ("", opening(notify_url="http://127.0.0.1/x"), 400, "unfit_notify_url"),
        ("", opening("open", requested=2), 409, "sequence_reused"),
        ("", opening("open", sequence=1), 409, "session_exists"),
        ("/REF/update", {}, 400, "MANDATORY_IE_MISSING"),
        ("/REF/update", {"sequence": 0}, 409, "sequence_reused"),
        ("/REF/release", {"sequence": 0}, 409, "sequence_reused"),
        ("/qs_nothing/update", {"sequence": 1}, 404, "CONTEXT_NOT_FOUND"),
        ("/qs_nothing/release", {"sequence": 1}, 404, "CONTEXT_NOT_FOUND"),
    ],
)
def test_errors_are_told_by_the_view(
    token: str,
    month: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: Any,
    status: int,
    code: str,
) -> None:
    ref = json.loads(ask(token, opening("open", requested=1))[1])["ref"]
    refused(monkeypatch, token, body, path.replace("REF", ref), status=status, code=code)
    assert QuotaAnswer.objects.count() == 1
    assert amounts(month) == (1000, 1)


def refused(
    monkeypatch: pytest.MonkeyPatch, token: str, body: Any, path: str, *, status: int, code: str
) -> None:
    """The short way passes it on, and with it in front a client gets the view's own problem."""
    assert ask(token, body, path) == (PASSED_ON, b"")
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def problem() -> Any:
        answer = client_of(token).generic("POST", URL + path, raw, content_type="application/json")  # type: ignore[arg-type]
        return answer.status_code, answer["Content-Type"], answer.content

    wanted = problem()
    with monkeypatch.context() as patch:
        handler = ForceAuthClientHandler.__call__
        patch.setattr(ForceAuthClientHandler, "__call__", patched(handler))
        assert problem() == wanted
    assert wanted[:2] == (status, "application/problem+json")
    assert json.loads(wanted[2])["code"] == code


def test_whoever_may_not_ask_is_told_by_the_view(
    token: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, only_reports = keys.issue_key(kind="node", name="n", scopes=["usage:write"], now=BORN)
    NodeKey.objects.create(node=node, api_key=key)
    refused(monkeypatch, only_reports, opening(), "", status=403, code="wrong_scope")
    refused(monkeypatch, f"{token}x", opening(), "", status=401, code="invalid_key")
    nodes.switch(node_id=node.pk, active=False)
    refused(monkeypatch, token, opening(), "", status=403, code="node_switched_off")
    nodes.switch(node_id=node.pk, active=True)
    assert ask(token, opening())[0] == CREATED
    keys.revoke(key_id=node.node_keys.exclude(api_key=key).get().api_key_id, now=NOON)
    refused(monkeypatch, token, opening("s2"), "", status=401, code="invalid_key")
    assert QuotaSession.objects.count() == 1


@pytest.mark.parametrize(
    "more",
    [
        {"REQUEST_METHOD": "GET"},
        {"REQUEST_METHOD": "PUT"},
        {"HTTP_ACCEPT": "text/html"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"HTTP_AUTHORIZATION": ""},
        {"CONTENT_LENGTH": str(2**16 + 1)},
        {"QUERY_STRING": "format=xml"},
        {"PATH_INFO": f"{URL}/"},
        {"PATH_INFO": f"{URL}/qs_1/expire"},
        {"PATH_INFO": f"{URL}/qs_1/../update"},
        {"PATH_INFO": f"{URL}/qs\n/update"},
    ],
)
def test_what_is_not_small_and_plain_is_the_views(token: str, more: dict[str, Any]) -> None:
    assert ask(token, opening(), **more)[0] == PASSED_ON
    assert not QuotaSession.objects.exists()


def test_a_client_may_name_json_among_what_it_takes(token: str) -> None:
    for number, takes in enumerate(["*/*", "application/json", "application/json, */*;q=0.5"]):
        assert ask(token, opening(f"s{number}"), HTTP_ACCEPT=takes)[0] == CREATED


def test_the_use_of_a_key_is_noted(token: str, node: Node) -> None:
    ask(token, opening())
    assert node.node_keys.get().api_key.last_used_at == NOON


def test_each_call_is_counted_once_under_its_route(
    collector: APIClient, token: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[str, int]:
        page = client.get("/metrics").content.decode()
        found = re.findall(r'_total{method="POST",route="api/v1/quota/(.*)"} (.*)', page)
        return {label.replace('",status="', " "): int(float(value)) for label, value in found}

    before = counted()
    handler = ForceAuthClientHandler.__call__
    monkeypatch.setattr(ForceAuthClientHandler, "__call__", patched(handler))
    ref = collector.post(URL, opening()).json()["ref"]
    collector.post(f"{URL}/{ref}/update", {"sequence": 1})
    collector.post(f"{URL}/{ref}/release", {"sequence": 2})
    collector.post(f"{URL}/{ref}/release", {"sequence": 3})
    after = counted()
    assert {label: after[label] - before.get(label, 0) for label in after} == dict.fromkeys(
        before, 0
    ) | {
        "sessions 201": 1,
        "sessions/<str:ref>/update 200": 1,
        "sessions/<str:ref>/release 200": 1,
        "sessions/<str:ref>/release 409": 1,
    }


# --- the connection


def in_thread(act: Callable[[], Any]) -> tuple[Any, bool]:
    """What `act` returns in a thread of its own, and whether it left a connection behind."""
    answer: list[Any] = []

    def run() -> None:
        try:
            told = act()
            answer.append((told, connection.connection is not None))
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    return answer[0]  # type: ignore[no-any-return]


@pytest.mark.django_db(transaction=True)
def test_the_connection_goes_back_after_an_answer_and_after_an_error(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with a pool, which cannot keep connections for threads.
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    answer, kept = in_thread(lambda: ask(token, opening()))
    assert (answer[0], kept) == (CREATED, False)
    for body, caller in ((opening(sequence=1), token), (b"{", token), (opening("s2"), "ak0.no")):
        answer, kept = in_thread(lambda body=body, caller=caller: ask(caller, body))  # type: ignore[misc]
        assert (answer[0], kept) == (PASSED_ON, False)


@pytest.mark.django_db(transaction=True)
def test_without_the_database_the_node_is_told_to_send_again(
    token: str, month: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "HOST", "/nowhere")
        answer, _kept = in_thread(lambda: ask(token, opening(requested=10)))
    assert answer[0] == UNAVAILABLE
    assert json.loads(answer[1])["code"] == "unavailable"
    assert ask(token, opening(requested=10))[0] == CREATED
    assert amounts(month) == (1000, 10)
