"""By node and hour: what a node counted itself against what arrived, and why they differ."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from rest_framework.test import APIClient

from accounts import keys, lifecycle
from accounts.models import ApiKey, Subscriber, User
from invoicing import node_assurance
from usage import counters, ledger, proof, quarantine
from usage.batches import BatchResult
from usage.counters import Totals
from usage.ingest import ingest
from usage.models import Node, QuarantinedEvent, UsageBatch
from usage.nodes import create_node
from usage.periods import BILLING_ZONE, InvalidPeriod
from usage.profiles import set_terms
from usage.weights import put_model, put_weight

DAY = date(2026, 11, 24)
NOON = datetime(2026, 11, 24, 12, tzinfo=BILLING_ZONE)
BORN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

Event = Callable[..., dict[str, Any]]


@pytest.fixture
def node(db: None) -> Node:
    put_model(code="plain", name="plain", aliases=[], now=BORN)
    put_weight(
        model_code="plain", input_milli=1000, cached_milli=1000, output_milli=1000,
        reasoning_milli=1000, valid_from=BORN, now=BORN,
    )  # fmt: skip
    return create_node(name="n1", now=BORN)[0]


@pytest.fixture
def subscriber(node: Node) -> Subscriber:
    account = lifecycle.open_account(kind="person", name="Wang", now=BORN)
    owner = lifecycle.create_subscriber(
        account_id=account.pk, msisdn="+8613900000001", actor="clerk", reason="new", now=BORN
    )
    lifecycle.activate(subscriber_id=owner.pk, actor="clerk", reason="new", now=BORN)
    grant(owner, 1_000_000)
    return owner


def grant(owner: Subscriber, tokens: int) -> None:
    ledger.grant(
        subscriber_id=owner.pk, kind="plan", name="月包", name_en="month", amount_mt=tokens * 1000,
        valid_from=BORN, valid_until=datetime(2027, 1, 1, tzinfo=UTC), key=f"grant:{tokens}",
        now=BORN,
    )  # fmt: skip


def event(id: str, tokens: int, *, at: datetime = NOON, **more: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": id, "source": "n1", "type": "inference.completed",
        "subject": "+8613900000001", "time": at.isoformat(),
        "data": {"model": "plain", "usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1}},
    } | more  # fmt: skip


def send(node: Node, *events: dict[str, Any], now: datetime = NOON, **more: Any) -> BatchResult:
    raws = [json.dumps(one).encode() for one in events]
    return ingest(node=node, events=raws, now=now, **more)


def count(node: Node, tokens: int, *, at: datetime = NOON, requests: int = 0) -> None:
    totals = [Totals("plain", tokens, 0, requests)]
    counters.take(node_id=node.pk, totals=totals, at=at, now=NOON + HOUR)


def count_rounded(node: Node, tokens: int, *, at: datetime, rounding: int = 5) -> None:
    totals = [Totals("", tokens, 0, 0, rounding)]
    counters.take(node_id=node.pk, totals=totals, at=at, now=NOON + 10 * HOUR)


def assure() -> dict[str, Any]:
    return node_assurance.assure_nodes(start=DAY, end=DAY + timedelta(days=1))


def hour(report: dict[str, Any], number: int) -> dict[str, Any]:
    return next(
        row for row in report["hours"] if row["hour"] == f"2026-11-24T{number:02}:00:00+08:00"
    )


def test_ra_01_a_day_reconciles_to_the_token(node: Node, subscriber: Subscriber) -> None:
    """1,000 events: 990 accepted, 7 repeated, 3 rejected; 998.2 million tokens accepted, of them
    900 million covered, 98 million priced, 0.2 million free; the node counted a billion."""
    set_terms(
        subscriber_id=subscriber.pk, beyond="payg", payg_fen_per_million=400,
        payg_cap_mt=98_000_000_000, now=BORN,
    )  # fmt: skip
    grant(subscriber, 899_000_000)
    accepted = [event(f"e{number}", 1_008_000) for number in range(989)]
    accepted.append(event("e989", 998_200_000 - 989 * 1_008_000))
    stranger: dict[str, Any] = {"subject": "+8613999999999"}
    rejected = [event(f"r{number}", 600_000, **stranger) for number in range(3)]
    for start in range(0, 990, 110):
        send(node, *accepted[start : start + 110])
    send(node, *rejected, *accepted[:7])
    count(node, 1_000_000_000, requests=993)
    report = assure()
    (row,) = report["nodes"]
    assert [row[name] for name in node_assurance.COUNTS] == [1000, 990, 7, 0, 3]
    assert (row["accepted_tokens"], row["rejected_tokens"]) == (998_200_000, 1_800_000)
    assert (row["counted_tokens"], row["difference_tokens"]) == (1_000_000_000, 0)
    assert row["counted_requests"] == 993
    assert (row["debited_mt"], row["overage_mt"], row["uncovered_mt"]) == (
        900_000_000_000, 98_000_000_000, 200_000_000,
    )  # fmt: skip
    assert (row["invoiced_mt"], row["not_invoiced_mt"]) == (0, 98_000_000_000)
    assert row["accepted_mt"] == row["debited_mt"] + row["overage_mt"] + row["uncovered_mt"]
    assert report["differences"] == []
    assert proof.verify() == []


def test_what_never_arrived_is_a_difference_with_the_gap_that_explains_it(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("a", 100), sequence=4)
    send(node, event("c", 100), sequence=6)
    count(node, 300, at=NOON + MINUTE)
    counted, missing = assure()["differences"]
    assert counted["rule"] == "tokens counted by the node = accepted + rejected"
    assert (counted["where"], counted["expected"], counted["found"]) == ("n1", 300, 200)
    assert counted["hours"] == ["2026-11-24T12:00:00+08:00"]
    assert counted["gaps"] == [(5, 5)]
    assert (missing["rule"], missing["found"]) == ("every numbered batch arrived", 1)
    send(node, event("b", 100), sequence=5)
    assert assure()["differences"] == []


def test_an_event_that_did_not_read_is_named_beside_the_difference(
    node: Node, subscriber: Subscriber
) -> None:
    unreadable = event("bad", 50)
    unreadable["data"]["usage"]["total_tokens"] = 7
    send(node, event("a", 100), event("x", 20, subject="+8613999999999"), unreadable)
    count(node, 170, at=NOON + MINUTE)
    report = assure()
    row = hour(report, 12)
    assert (row["rejected"], row["rejected_tokens"], row["difference_tokens"]) == (2, 20, 50)
    held = QuarantinedEvent.objects.get(event_id="bad")
    assert row["events"][0] == {
        "quarantined": held.pk, "id": "bad", "code": "invalid_event", "tokens": None,
    }  # fmt: skip
    assert report["differences"][0]["events"] == row["events"]


def test_a_conflict_stands_apart_and_is_named(node: Node, subscriber: Subscriber) -> None:
    send(node, event("a", 100))
    send(node, event("a", 40))
    count(node, 140, at=NOON + MINUTE)
    row = hour(assure(), 12)
    assert (row["conflict"], row["conflict_tokens"], row["difference_tokens"]) == (1, 40, 40)
    assert [one["code"] for one in row["events"]] == ["conflict"]


def test_tokens_count_in_the_hour_of_use_and_samples_in_the_hour_they_end(
    node: Node, subscriber: Subscriber
) -> None:
    late = event("x", 7, at=NOON - HOUR, subject="+8613999999999")
    send(node, event("a", 100, at=NOON - timedelta(microseconds=1)), event("b", 5), late)
    count(node, 107, at=NOON)
    count(node, 112, at=NOON + HOUR)
    report = assure()
    eleven, twelve = hour(report, 11), hour(report, 12)
    assert (eleven["counted_tokens"], eleven["accepted_tokens"]) == (107, 100)
    assert (eleven["rejected_tokens"], eleven["difference_tokens"]) == (7, 0)
    assert (twelve["counted_tokens"], twelve["difference_tokens"]) == (5, 0)


def test_a_restart_in_between_is_no_difference(node: Node, subscriber: Subscriber) -> None:
    send(node, event("a", 100), event("b", 30, at=NOON + MINUTE), now=NOON + MINUTE)
    count(node, 100)
    count(node, 30, at=NOON + 2 * MINUTE)
    (row,) = assure()["nodes"]
    assert (row["resets"], row["difference_tokens"]) == (1, 0)


def test_a_node_without_counters_is_not_accused(node: Node, subscriber: Subscriber) -> None:
    send(node, event("a", 100))
    report = assure()
    assert report["nodes"][0]["counted_tokens"] is None
    assert report["nodes"][0]["difference_tokens"] is None
    assert report["differences"] == []


def test_a_node_that_counts_and_sends_nothing_is(node: Node, subscriber: Subscriber) -> None:
    count(node, 100, at=NOON + MINUTE)
    (found,) = assure()["differences"]
    assert (found["expected"], found["found"]) == (100, 0)


def test_a_refusal_counts_once_however_often_it_is_sent_or_replayed(
    node: Node, subscriber: Subscriber
) -> None:
    stranger = event("x", 60, subject="+8613999999999")
    for _again in range(3):
        send(node, stranger)
    count(node, 60, at=NOON + MINUTE)
    first = QuarantinedEvent.objects.order_by("id")[0]
    quarantine.replay(quarantined_ids=[first.pk], actor="clerk", now=NOON)  # still unknown
    (row,) = assure()["nodes"]
    assert (row["rejected"], row["rejected_tokens"], row["difference_tokens"]) == (1, 60, 0)
    lifecycle.change_number(
        subscriber_id=subscriber.pk, msisdn="+8613999999999", actor="clerk", reason="asked",
        now=BORN + HOUR,
    )  # fmt: skip
    send(node, stranger)  # counted at last: what was refused before is this one
    (row,) = assure()["nodes"]
    assert (row["accepted"], row["rejected"], row["difference_tokens"]) == (1, 0, 0)


def test_an_event_that_is_not_paid_for_exactly_is_named(node: Node, subscriber: Subscriber) -> None:
    batch = send(node, event("a", 100), event("b", 10))
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            "UPDATE usage_ledgerentry SET amount_mt = amount_mt + 1 WHERE event_id = %s",
            [batch.batch_id * 16_384 + 1],
        )
        cursor.execute("SET session_replication_role = origin")
    (found,) = assure()["differences"]
    assert found == {
        "rule": "accepted mt = debited + overage + uncovered",
        "where": "n1 2026-11-24T12:00:00+08:00",
        "expected": 10_000,
        "found": 9_999,
        "events": [{"event": batch.batch_id * 16_384 + 1}],
    }


def test_nodes_do_not_pay_for_each_other(node: Node, subscriber: Subscriber) -> None:
    other, _token = create_node(name="n2", now=BORN)
    send(node, event("a", 100))
    send(other, event("b", 100, source="n2"))
    count(node, 150, at=NOON + MINUTE)
    count(other, 50, at=NOON + MINUTE)
    assert [(one["where"], one["expected"], one["found"]) for one in assure()["differences"]] == [
        ("n1", 150, 100), ("n2", 50, 100),
    ]  # fmt: skip


def test_only_the_days_asked_for_count(node: Node, subscriber: Subscriber) -> None:
    midnight = datetime(2026, 11, 24, tzinfo=BILLING_ZONE)
    send(node, event("before", 1, at=midnight - timedelta(microseconds=1)), event("in", 2))
    send(node, event("at", 4, at=midnight), now=NOON)
    count(node, 1, at=midnight)
    count(node, 7, at=NOON)
    (row,) = assure()["nodes"]
    assert (row["accepted_tokens"], row["counted_tokens"]) == (6, 6)


@pytest.mark.parametrize("days", [0, -1, 32])
def test_a_period_has_one_to_thirty_one_days(db: None, days: int) -> None:
    with pytest.raises(InvalidPeriod):
        node_assurance.assure_nodes(start=DAY, end=DAY + timedelta(days=days))


def staff(*scopes: str) -> APIClient:
    user = User.objects.create_user(username="-".join(scopes).replace(":", "-"), is_staff=True)
    _key, token = keys.issue_key(
        kind=ApiKey.Kind.STAFF, name="audit", scopes=scopes, user_id=user.pk, now=NOON
    )
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def test_auditors_read_it_and_others_do_not(node: Node, subscriber: Subscriber) -> None:
    send(node, event("a", 100))
    address = "/api/v1/assurance/nodes?from=2026-11-24&to=2026-11-25"
    report = staff("assurance:read").get(address).json()
    assert report["nodes"][0]["accepted_tokens"] == 100
    assert report == json.loads(json.dumps(assure()))
    assert staff("accounts:read").get(address).status_code == 403
    assert APIClient().get(address).status_code == 401
    bad = staff("assurance:read", "invoices:read").get("/api/v1/assurance/nodes?from=x")
    assert bad.json()["code"] == "invalid_period"


def run(*options: str) -> tuple[str, int]:
    out = StringIO()
    try:
        call_command(
            "assurance", "--from", "2026-11-24", "--to", "2026-11-25", "--by-node", *options,
            stdout=out,
        )  # fmt: skip
    except SystemExit as end:
        return out.getvalue(), int(end.code or 0)
    return out.getvalue(), 0


def test_the_command_says_it_and_ends_with_one_when_something_differs(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("a", 100))
    count(node, 100, at=NOON + MINUTE)
    text, status = run()
    assert status == 0
    assert "proven" in text
    count(node, 160, at=NOON + 2 * MINUTE)
    text, status = run()
    assert status == 1
    assert "2026-11-24T12:00:00+08:00" in text
    text, status = run("--json")
    assert (json.loads(text)["differences"][0]["expected"], status) == (160, 1)
    with pytest.raises(CommandError):
        call_command("assurance", "--from", "2026-11-24", "--to", "2026-11-24", "--by-node")


def test_a_batch_of_a_replay_is_not_received_again(node: Node, subscriber: Subscriber) -> None:
    send(node, event("a", 100))
    send(node, event("a", 100), kind=UsageBatch.Kind.REPLAY)
    (row,) = assure()["nodes"]
    assert (row["received"], row["duplicate"]) == (1, 0)


@pytest.mark.parametrize(
    ("last", "restart", "off", "differs"),
    [
        # The first and the last sample may each be off by 5, those between them do not count.
        (2_000_110, False, 10, False),
        (2_000_090, False, -10, False),
        (2_000_120, False, 20, True),
        # After a restart: the last one before it, too, but no former one for the new run.
        (1_000_015, True, 15, False),
        (1_000_016, True, 16, True),
    ],
)
def test_a_difference_is_none_as_far_as_the_engine_has_rounded(
    node: Node, subscriber: Subscriber, last: int, restart: bool, off: int, differs: bool
) -> None:
    before = datetime(2026, 11, 23, 20, tzinfo=BILLING_ZONE)
    count_rounded(node, 1_000_000, at=before)
    between = [1_000_050, 2_000_000] if not restart else [1_900_000, 2_000_000]
    for place, total in enumerate(between):
        count_rounded(node, total, at=NOON + place * MINUTE)
    count_rounded(node, last, at=NOON + 3 * HOUR)
    send(node, event("e1", 1_000_100 if not restart else 2_000_000))
    report = assure()
    (row,) = report["nodes"]
    assert row["difference_tokens"] == off
    assert row["counted_rounding"] == (15 if restart else 10)
    assert hour(report, 12)["counted_rounding"] == 10
    assert bool(report["differences"]) is differs
    if differs:
        assert report["differences"][0]["rounding"] == row["counted_rounding"]
