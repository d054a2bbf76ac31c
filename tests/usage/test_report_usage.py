"""POST /api/v1/usage/events over HTTP: bodies, limits, verdicts and the shape of the answer."""

import gzip
import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import Subscriber
from usage.models import Bucket, Node, QuarantinedEvent, UsageBatch, UsageEvent

from .conftest import BORN, NOON, client_of, event, left

URL = "/api/v1/usage/events"
BATCH = "application/cloudevents-batch+json"
LINES = "application/x-ndjson"

pytestmark = pytest.mark.usefixtures("clock_at_noon", "subscriber", "way")


def post(client: APIClient, body: Any, kind: str = BATCH, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.generic("POST", URL, data, content_type=kind, **headers)  # type: ignore[arg-type]


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"].startswith("application/problem+json")
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    return body


def nothing_stored() -> bool:
    tables = (UsageBatch, UsageEvent, QuarantinedEvent)
    return not any(table.objects.exists() for table in tables)


# --- bodies


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/cloudevents+json", json.dumps(event("e1", 10)).encode()),
        (BATCH, json.dumps([event("e1", 10)]).encode()),
        ("application/json", json.dumps([event("e1", 10)]).encode()),
        ("application/json", b" \n" + json.dumps(event("e1", 10)).encode()),
        (LINES, json.dumps(event("e1", 10)).encode() + b"\n"),
        (LINES, b"\r\n" + json.dumps(event("e1", 10)).encode()),
        ("application/json; charset=utf-8", json.dumps([event("e1", 10)]).encode()),
        ("Application/CloudEvents-Batch+JSON", json.dumps([event("e1", 10)]).encode()),
    ],
)
def test_each_of_the_bodies_counts_its_event(
    collector: APIClient, month: Bucket, kind: str, body: bytes
) -> None:
    response = post(collector, body, kind)
    assert response.status_code == 200, response.content
    assert response.json()["accepted"] == 1
    assert left(month) == 990_000


@pytest.mark.parametrize("encoding", ["gzip", "GZIP"])
def test_a_gzipped_body_is_welcome(collector: APIClient, month: Bucket, encoding: str) -> None:
    body = gzip.compress(json.dumps([event("e1", 10)]).encode())
    response = post(collector, body, HTTP_CONTENT_ENCODING=encoding)
    assert response.json()["accepted"] == 1
    assert left(month) == 990_000


def test_the_answer_has_the_published_shape(collector: APIClient, subscriber: Subscriber) -> None:
    batch = [event(f"e{number}", 111) for number in range(9)]
    batch[3] = event("req-8", 1, subject="+8613911111111")
    batch += [batch[0], event("e10", 200)]
    response = post(collector, batch)
    answer = response.json()
    assert response.status_code == 200
    assert answer.pop("batch") > 0
    detail = answer["errors"][0].pop("detail")
    assert "+8613911111111" in detail
    assert answer == {
        "accepted": 9,
        "duplicate": 1,
        "conflict": 0,
        "rejected": 1,
        "errors": [{"index": 3, "id": "req-8", "code": "unknown_subscriber"}],
        "exhausted": [{"subject": "+8613900000001", "reason": "quota_exhausted"}],
    }


def test_an_empty_batch_is_a_batch_of_nothing(collector: APIClient) -> None:
    for kind, body in ((BATCH, b"[]"), (LINES, b""), (LINES, b"\n\n")):
        response = post(collector, body, kind)
        assert response.status_code == 200
        answer = response.json()
        assert [answer[name] for name in ("accepted", "duplicate", "conflict", "rejected")] == [
            0, 0, 0, 0,
        ]  # fmt: skip
        assert answer["errors"] == answer["exhausted"] == []


def test_a_bad_line_is_refused_alone(collector: APIClient, month: Bucket) -> None:
    lines = [json.dumps(event("e1", 1)), '{"id": "e2", broken', json.dumps(event("e3", 2))]
    answer = post(collector, "\n".join(lines).encode(), LINES).json()
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert [(one["index"], one["code"]) for one in answer["errors"]] == [(1, "invalid_event")]
    assert left(month) == 997_000
    assert QuarantinedEvent.objects.get().body == lines[1]


def test_a_line_that_is_no_text_is_kept_as_evidence(collector: APIClient) -> None:
    answer = post(collector, b'{"id":"\xff\x00"}\n', LINES).json()
    assert answer["rejected"] == 1
    assert QuarantinedEvent.objects.get().body == '{"id":"\\xff\\x00"}'


@pytest.mark.parametrize("body", [b"", b"{", b"[{}", b"nonsense", b'"text', b"[1,]"])
def test_a_body_that_is_not_json_is_400_and_stores_nothing(
    collector: APIClient, body: bytes
) -> None:
    problem(post(collector, body), 400, "unreadable_body")
    assert nothing_stored()


def test_a_batch_type_with_a_single_object_in_it_is_400(collector: APIClient) -> None:
    problem(post(collector, event("e1", 1), BATCH), 400, "unreadable_body")
    assert nothing_stored()


def test_broken_gzip_is_400_and_stores_nothing(collector: APIClient) -> None:
    body = gzip.compress(json.dumps([event("e1", 10)]).encode())
    for broken in (b"no gzip", body[:-9], body[:20] + b"\0" + body[21:], body + b"tail"):
        problem(post(collector, broken, HTTP_CONTENT_ENCODING="gzip"), 400, "unreadable_body")
    assert nothing_stored()


def test_another_type_or_encoding_is_415(collector: APIClient) -> None:
    body = [event("e1", 1)]
    for kind in ("text/csv", "application/xml", "multipart/form-data", ""):
        problem(post(collector, body, kind), 415, "unsupported_media_type")
    problem(post(collector, body, HTTP_CONTENT_ENCODING="br"), 415, "unsupported_media_type")
    assert nothing_stored()


# --- limits


def test_ten_thousand_events_are_the_most(collector: APIClient, month: Bucket) -> None:
    line = json.dumps(event("e1", 1)).encode() + b"\n"
    answer = post(collector, line * 10_000, LINES).json()
    assert (answer["accepted"], answer["duplicate"]) == (1, 9999)
    problem(post(collector, line * 10_001, LINES), 413, "body_too_large")
    assert UsageBatch.objects.count() == 1


def test_sixteen_mebibytes_are_the_most(collector: APIClient) -> None:
    most = 16 * 2**20
    problem(post(collector, b" " * (most + 1), LINES), 413, "body_too_large")
    assert post(collector, b" " * most, LINES).status_code == 200


def test_a_gzip_bomb_is_not_inflated_past_the_limit(collector: APIClient) -> None:
    bomb = gzip.compress(b" " * (17 * 2**20))
    assert len(bomb) < 2**16
    response = post(collector, bomb, LINES, HTTP_CONTENT_ENCODING="gzip")
    problem(response, 413, "body_too_large")
    assert nothing_stored()


# --- who may


def test_without_a_key_it_is_401(collector: APIClient) -> None:
    for client in (APIClient(), client_of("ak0.nonsense"), client_of("")):
        response = post(client, [event("e1", 1)])
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert nothing_stored()


def test_a_key_without_the_scope_is_403(collector: APIClient, subscriber: Subscriber) -> None:
    _, phone = keys.issue_key(kind="subscriber", subscriber_id=subscriber.id, now=BORN)
    _, staff = keys.issue_key(kind="staff", scopes=["accounts:write"], now=BORN)
    for token in (phone, staff):
        assert post(client_of(token), [event("e1", 1)]).status_code == 403
    assert nothing_stored()


def test_a_revoked_node_key_is_401(node: Node, collector: APIClient) -> None:
    keys.revoke(key_id=node.node_keys.get().api_key_id, now=NOON)
    assert post(collector, [event("e1", 1)]).status_code == 401
    assert nothing_stored()
