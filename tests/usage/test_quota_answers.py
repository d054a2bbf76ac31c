"""Quota sessions over HTTP: each question is answered once, and what is no question is refused."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import lifecycle
from accounts.keys import issue_key
from accounts.models import Subscriber
from usage import proof
from usage.models import Bucket, QuotaAnswer, QuotaSession, UsageBatch, UsageEvent
from usage.nodes import create_node

from .conftest import BORN, NOON, client_of, event, give
from .quota_calls import SUBJECT, URL, amounts, create, release, update

pytestmark = pytest.mark.usefixtures("clock_at_noon", "way")


def test_without_events_no_batch_is_written(collector: APIClient, subscriber: Subscriber) -> None:
    ref = create(collector, requested=400).json()["ref"]
    update(collector, ref, 1)
    release(collector, ref, 2)
    assert not UsageBatch.objects.exists()


def test_the_same_question_gets_the_same_answer_and_is_charged_once(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    first = create(collector, requested=400)
    again = create(collector, requested=400)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    ref = first.json()["ref"]
    answers = [update(collector, ref, 1, event("e1", 100), requested=300) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    answers = [release(collector, ref, 2, event("e2", 50)) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert amounts(month) == (850, 0)
    assert QuotaAnswer.objects.count() == 3
    # Long after the release an old sequence still gets its answer.
    assert update(collector, ref, 1, event("e1", 100), requested=300).json()["granted"] == 300


def test_another_question_under_the_same_sequence_is_a_conflict(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    assert create(collector, requested=401).json()["code"] == "sequence_reused"
    assert create(collector, requested=400, subject="+8613999999999").status_code == 409
    update(collector, ref, 1, event("e1", 100), requested=300)
    conflict = update(collector, ref, 1, event("e1", 101), requested=300)
    assert (conflict.status_code, conflict.json()["code"]) == (409, "sequence_reused")
    assert release(collector, ref, 1).status_code == 409  # neither is a release the same question
    assert amounts(month) == (900, 300)
    assert proof.verify() == []


def test_a_second_session_of_the_same_name_is_refused(
    collector: APIClient, subscriber: Subscriber
) -> None:
    create(collector, requested=400)
    answer = create(collector, sequence=1, requested=400)
    assert (answer.status_code, answer.json()["code"]) == (409, "session_exists")


def test_a_released_session_grants_nothing_more(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=400).json()["ref"]
    release(collector, ref, 1)
    for answer in (update(collector, ref, 2, requested=10), release(collector, ref, 3)):
        assert (answer.status_code, answer.json()["code"]) == (409, "session_released")
    assert amounts(month) == (1000, 0)


def test_what_is_reported_after_the_release_is_charged_and_flagged(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    """A lost update is sent again after the release has come through: nothing of it is dropped."""
    ref = create(collector, requested=400).json()["ref"]
    release(collector, ref, 2)
    late = update(collector, ref, 1, event("e1", 120), requested=400)
    assert late.status_code == 200
    body = late.json()
    assert (body["accepted"], body["granted"], body["late_usage"]) == (1, 0, True)
    assert body["final"] == {"action": "TERMINATE"}
    assert update(collector, ref, 1, event("e1", 120), requested=400).json() == body
    again = release(collector, ref, 3, event("e1", 120), event("e2", 30)).json()
    assert (again["accepted"], again["duplicate"], again["late_usage"]) == (1, 1, True)
    assert amounts(month) == (850, 0)
    assert QuotaSession.objects.get().state == "released"
    assert proof.verify() == []


@pytest.mark.parametrize(
    ("result", "changes"),
    [
        ("USER_UNKNOWN", {"subject": "+8613911111111"}),
        ("USER_UNKNOWN", {"subject": "nobody"}),
        ("RATING_FAILED", {"model": "gpt-0"}),
    ],
)
def test_the_result_says_why_nothing_is_granted(
    collector: APIClient, subscriber: Subscriber, result: str, changes: dict[str, Any]
) -> None:
    answer = create(collector, requested=10, **changes)
    assert answer.status_code == 201
    assert (answer.json()["result"], answer.json()["granted"]) == (result, 0)
    assert create(collector, requested=10, **changes).json() == answer.json()
    ref = answer.json()["ref"]
    # What it reports is its own matter: events name their own subject and model.
    body = update(collector, ref, 1, event("e1", 5), requested=10).json()
    assert (body["result"], body["accepted"]) == (result, 1)
    assert release(collector, ref, 2).json()["result"] == "SUCCESS"
    assert proof.verify() == []


def test_a_subscriber_who_comes_after_the_session_is_found_at_the_update(
    collector: APIClient, bare: Subscriber
) -> None:
    ref = create(collector, subject="+8613900000009", requested=10).json()["ref"]
    created = lifecycle.create_subscriber(
        account_id=bare.account_id, msisdn="+8613900000009", actor="clerk", reason="new", now=NOON
    )
    lifecycle.activate(subscriber_id=created.pk, actor="clerk", reason="new", now=NOON)
    bucket = give(created, 100)
    assert update(collector, ref, 1, requested=10).json()["granted"] == 10
    assert amounts(bucket) == (100, 10)
    release(collector, ref, 2)
    assert amounts(bucket) == (100, 0)


def test_a_one_shot_debit_holds_nothing(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    answer = create(collector, one_shot=True, events=[event("e1", 100)])
    assert answer.status_code == 201
    assert (answer.json()["accepted"], answer.json()["granted"]) == (1, 0)
    assert create(collector, one_shot=True, events=[event("e1", 100)]).json() == answer.json()
    assert amounts(month) == (900, 0)
    assert QuotaSession.objects.get().state == "released"
    missing = create(collector, "s2", one_shot=True).json()
    assert missing["code"] == "MANDATORY_IE_MISSING"


@pytest.mark.parametrize(
    ("result", "changes", "accepted"),
    [
        ("USER_UNKNOWN", {"subject": "+8613911111111"}, 0),
        ("RATING_FAILED", {"model": "gpt-0"}, 0),
        ("SERVICE_DENIED", {}, 1),
    ],
)
def test_a_one_shot_debit_says_why_it_would_be_granted_nothing(
    collector: APIClient,
    subscriber: Subscriber,
    result: str,
    changes: dict[str, Any],
    accepted: int,
) -> None:
    if result == "SERVICE_DENIED":
        lifecycle.suspend(subscriber_id=subscriber.pk, actor="clerk", reason="fraud", now=NOON)
    body = create(collector, one_shot=True, events=[event("e1", 5, **changes)], **changes).json()
    assert (body["result"], body["accepted"]) == (result, accepted)
    assert QuotaSession.objects.get().state == "released"
    assert proof.verify() == []


def test_a_session_belongs_to_its_node(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    _other, token = create_node(name="n2", now=BORN)
    stranger = client_of(token)
    ref = create(collector, requested=400).json()["ref"]
    for verb in (update, release):
        answer = verb(stranger, ref, 1)
        assert (answer.status_code, answer.json()["code"]) == (404, "CONTEXT_NOT_FOUND")
    assert create(stranger, requested=400).json()["ref"] != ref  # names are each node's own
    assert amounts(month) == (1000, 800)


@pytest.mark.parametrize("ref", ["qs_nothing", "x" * 200, "a%00b", "..", "'; --"])
def test_an_unknown_ref_is_not_found(
    collector: APIClient, ref: str, subscriber: Subscriber
) -> None:
    answer = collector.post(f"{URL}/{ref}/update", {"sequence": 1, "events": [event("e1", 10)]})
    assert answer.status_code == 404
    assert answer.json()["code"] in {"CONTEXT_NOT_FOUND", "not_found"}
    assert not UsageEvent.objects.exists()


@pytest.mark.parametrize("missing", ["session", "subject", "model"])
def test_a_mandatory_member_is_asked_for(collector: APIClient, missing: str) -> None:
    body = {"session": "s1", "sequence": 0, "subject": SUBJECT, "model": "plain"}
    del body[missing]
    answer = collector.post(URL, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "MANDATORY_IE_MISSING")
    assert collector.post(f"{URL}/qs_x/update", {}).json()["code"] == "MANDATORY_IE_MISSING"


@pytest.mark.parametrize(
    "changes",
    [
        {"requested": -1},
        {"requested": 1.5},
        {"requested": True},
        {"requested": "10"},
        {"requested": 10**40},
        {"sequence": -1},
        {"sequence": 2**63},
        {"session": ""},
        {"session": "a\0b"},
        {"session": "x" * 201},
        {"subject": 13900000001},
        {"model": "a\nb"},
        {"events": {}},
        {"notify_url": 3},
        {"notify_url": "ftp://example.com/x"},
        {"notify_url": "http://127.0.0.1/x"},
    ],
)
def test_a_body_that_does_not_read_is_refused_whole(
    collector: APIClient, subscriber: Subscriber, changes: dict[str, Any]
) -> None:
    answer = create(collector, **changes)
    assert answer.status_code == 400, answer.json()
    assert not QuotaSession.objects.exists()


def test_huge_and_broken_events_are_refused_alone(
    collector: APIClient, subscriber: Subscriber, month: Bucket
) -> None:
    ref = create(collector, requested=10).json()["ref"]
    huge = event("e1", 10**40)
    body = update(collector, ref, 1, huge, 7, None, event("e2", 1), requested=0).json()
    assert (body["accepted"], body["rejected"]) == (1, 3)
    assert amounts(month) == (999, 0)
    assert proof.verify() == []


def test_what_is_no_json_is_refused(collector: APIClient) -> None:
    for raw in (b"", b"{", b"[]", b"\xff", b'"x"', b"[" * 100_000):
        answer = collector.post(URL, raw, content_type="application/json")
        assert answer.status_code == 400


def test_only_nodes_ask(collector: APIClient, subscriber: Subscriber) -> None:
    assert create(APIClient()).status_code == 401
    assert create(client_of("aknobody.secret")).status_code == 401


def test_a_key_of_a_subscriber_may_not_ask(subscriber: Subscriber) -> None:
    _key, token = issue_key(kind="subscriber", subscriber_id=subscriber.pk, now=BORN)
    assert create(client_of(token)).status_code == 403
