"""What becomes of each event: refused with a code, counted once, or in conflict."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts import keys
from accounts.models import ApiKey, Subscriber
from usage.models import Bucket, Node, QuarantinedEvent, UsageEvent
from usage.nodes import create_node

from .conftest import BORN, NOON, client_of, event, left
from .test_report_usage import BATCH, LINES, nothing_stored, post, problem

pytestmark = pytest.mark.usefixtures("clock_at_noon", "subscriber")


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("invalid_event", {"specversion": "0.3"}),
        ("invalid_event", {"id": ""}),
        ("invalid_event", {"id": 7}),
        ("invalid_event", {"id": "a\0b"}),
        ("invalid_event", {"id": "a\tb"}),
        ("invalid_event", {"source": "n1\n"}),
        ("invalid_event", {"id": "x" * 201}),
        ("invalid_event", {"subject": "x" * 101}),
        ("invalid_event", {"time": "2026-11-24T12:00:00"}),
        ("invalid_event", {"time": "yesterday"}),
        ("invalid_event", {"time": None}),
        ("invalid_event", {"time": "9999-12-31T23:59:59Z"}),
        ("invalid_event", {"data": None}),
        ("invalid_event", {"data": {"model": "plain"}}),
        ("invalid_event", {"data": {"model": "plain", "usage": None}}),
        ("invalid_event", {"data": {"model": "", "usage": {"prompt_tokens": 1}}}),
        ("invalid_event", {"data": {"model": 3, "usage": {"prompt_tokens": 1}}}),
        ("invalid_event", {"data": {"model": "plain", "usage": {"prompt_tokens": 1.5}}}),
        ("invalid_event", {"data": {"model": "plain", "usage": {"prompt_tokens": 10**40}}}),
        ("unknown_subscriber", {"subject": "+8613911111111"}),
        ("unknown_subscriber", {"subject": "+"}),
        ("unknown_subscriber", {"subject": "0"}),
        ("unknown_subscriber", {"subject": "9" * 40}),
        ("unknown_subscriber", {"subject": "aknobody"}),
        ("unknown_subscriber", {"subject": "'; DROP TABLE accounts_subscriber; --"}),
        ("unknown_model", {"data": {"model": "gpt-0", "usage": {"prompt_tokens": 1}}}),
        ("unknown_model", {"data": {"model": "a\0b", "usage": {"prompt_tokens": 1}}}),
        ("not_your_source", {"source": "n2"}),
        ("not_your_source", {"source": "n11"}),
        ("too_old", {"time": "2026-09-23T11:59:59.999999+08:00"}),
        ("in_future", {"time": "2026-11-24T12:05:00.000001+08:00"}),
    ],
)
def test_a_refused_event_says_why_and_is_kept(
    collector: APIClient, month: Bucket, code: str, changes: dict[str, Any]
) -> None:
    answer = post(collector, [event("good", 1), event("bad", 1) | changes]).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 1), answer
    assert [(one["index"], one["code"]) for one in answer["errors"]] == [(1, code)], answer
    kept = QuarantinedEvent.objects.get()
    assert (kept.code, kept.position, kept.state) == (code, 1, "open")
    assert json.loads(kept.body)["specversion"] in {"1.0", "0.3"}
    assert left(month) == 999_000


def test_the_edges_of_the_accepted_window_are_accepted(collector: APIClient) -> None:
    oldest, newest = "2026-09-23T12:00:00+08:00", "2026-11-24T12:05:00+08:00"
    batch = [event("old", 1, time=oldest), event("new", 1, time=newest)]
    assert post(collector, batch).json()["accepted"] == 2


@pytest.mark.parametrize("raw", [b"null", b"1", b'"text"', b"[]", b"{}", b'{"id":"\\ud800"}'])
def test_an_element_that_is_no_event_is_refused_alone(collector: APIClient, raw: bytes) -> None:
    body = b"[" + raw + b"," + json.dumps(event("e1", 1)).encode() + b"]"
    answer = post(collector, body).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert answer["errors"][0]["code"] == "invalid_event"


def test_a_text_cut_off_in_an_emoji_costs_only_its_own_event(
    collector: APIClient, month: Bucket
) -> None:
    broken = json.dumps(event("bad", 1, note="X")).replace('"X"', '"\\ud83d"')
    for kind, body in (
        (BATCH, f"[{broken}, {json.dumps(event('e1', 1))}]"),
        (LINES, f"{broken}\n{json.dumps(event('e2', 1))}"),
    ):
        answer = post(collector, body.encode(), kind).json()
        assert (answer["accepted"], answer["rejected"]) == (1, 1)
        assert [(one["index"], one["code"]) for one in answer["errors"]] == [(0, "invalid_event")]
    assert left(month) == 998_000


def test_nesting_without_end_is_refused_and_no_failure(collector: APIClient) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    problem(post(collector, deep), 400, "unreadable_body")
    assert nothing_stored()
    answer = post(collector, b'{"data": ' + deep + b"}", LINES).json()
    assert answer["rejected"] == 1


def test_a_source_below_the_nodes_own_is_its_own(collector: APIClient) -> None:
    answer = post(collector, [event("e1", 1, source="n1/gpu0"), event("e1", 1)]).json()
    assert answer["accepted"] == 2  # the identity is (source, id)


def test_a_model_is_named_by_alias_and_in_any_case(collector: APIClient) -> None:
    batch = [event("e1", 1, model="lab/plain"), event("e2", 1, model="PLAIN")]
    assert post(collector, batch).json()["accepted"] == 2


# --- identity


def test_a_repeat_in_the_batch_counts_once(collector: APIClient, month: Bucket) -> None:
    answer = post(collector, [event("a", 10), event("a", 10), event("b", 10)]).json()  # idem-04
    assert (answer["accepted"], answer["duplicate"], answer["errors"]) == (2, 1, [])
    assert left(month) == 980_000


def test_a_retry_with_a_new_time_is_a_duplicate(collector: APIClient, month: Bucket) -> None:
    post(collector, [event("e1", 10, time="2026-11-24T10:00:00+08:00")])  # idem-02
    answer = post(collector, [event("e1", 10, time="2026-11-24T10:00:05+08:00")]).json()
    assert (answer["accepted"], answer["duplicate"]) == (0, 1)
    assert left(month) == 990_000


def test_the_same_id_with_another_payload_is_a_conflict(
    collector: APIClient, month: Bucket
) -> None:
    batches = [[event("e1", 10)], [event("e1", 10)], [event("e1", 12)]]  # idem-03, USG-01
    answers = [post(collector, batch).json() for batch in batches]
    assert [one["accepted"] for one in answers] == [1, 0, 0]
    assert [one["duplicate"] for one in answers] == [0, 1, 0]
    assert [one["conflict"] for one in answers] == [0, 0, 1]
    assert answers[2]["errors"][0]["code"] == "conflict"
    assert left(month) == 990_000
    assert QuarantinedEvent.objects.get().code == "conflict"


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "+8613900000002"},
        {"data": {"model": "heavy", "usage": {"prompt_tokens": 10}}},
        {"data": {"model": "plain", "usage": {"prompt_tokens": 0, "completion_tokens": 10}}},
        {
            "data": {
                "model": "plain",
                "usage": {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 1}},
            }
        },
    ],
)
def test_whom_what_and_how_much_are_the_content(
    collector: APIClient, neighbour: Subscriber, other: dict[str, Any]
) -> None:
    answer = post(collector, [event("e1", 10), event("e1", 10) | other]).json()
    assert (answer["accepted"], answer["conflict"]) == (1, 1)


def test_against_a_stored_event_the_stored_one_is_right(
    collector: APIClient, month: Bucket
) -> None:
    post(collector, [event("e1", 10)])
    answer = post(collector, [event("e1", 12), event("e1", 10), event("e1", 12)]).json()
    assert (answer["accepted"], answer["duplicate"], answer["conflict"]) == (0, 1, 2)
    assert [one["index"] for one in answer["errors"]] == [0, 2]
    assert left(month) == 990_000


def test_a_refused_event_does_not_take_its_id(collector: APIClient, month: Bucket) -> None:
    post(collector, [event("e1", 10, subject="+8613911111111")])
    assert post(collector, [event("e1", 10)]).json()["accepted"] == 1


def test_two_nodes_may_use_the_same_ids(collector: APIClient, month: Bucket) -> None:
    _, token = create_node(name="n2", now=BORN)
    post(collector, [event("e1", 10)])
    answer = post(client_of(token), [event("e1", 99, source="n2")]).json()
    assert answer["accepted"] == 1
    assert left(month) == 891_000


def test_an_event_keeps_what_it_was_counted_with(
    collector: APIClient, subscriber: Subscriber, node: Node
) -> None:
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 200},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    answer = post(collector, [event("back\\slash", model="heavy", usage=usage)]).json()
    stored = UsageEvent.objects.get()
    assert (stored.source, stored.event_id, stored.node_id) == ("n1", "back\\slash", node.pk)
    assert (stored.subscriber_id, stored.batch_id) == (subscriber.id, answer["batch"])
    assert stored.occurred_at == NOON
    assert (
        stored.input_tokens,
        stored.cached_tokens,
        stored.output_tokens,
        stored.reasoning_tokens,
    ) == (1000, 200, 260, 40)
    assert stored.mt == 1000 * 10_000 + 200 * 1000 + 260 * 40_000 + 40 * 20_000


def test_weighted_tokens_are_exact_to_the_millitoken(collector: APIClient, month: Bucket) -> None:
    usage = {  # ours-02, whose rounding up we do not need: a millitoken holds the half
        "prompt_tokens": 1506,
        "prompt_tokens_details": {"cached_tokens": 505},
        "completion_tokens": 250,
    }
    post(collector, [event("e1", model="fine", usage=usage)])
    assert UsageEvent.objects.get().mt == 2_051_500


def test_an_events_own_key_is_remembered(collector: APIClient, subscriber: Subscriber) -> None:
    key, _ = keys.issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=subscriber.id, now=BORN)
    post(collector, [event("e1", 1, subject=key.public_id)])
    assert UsageEvent.objects.get().api_key_id == key.pk
