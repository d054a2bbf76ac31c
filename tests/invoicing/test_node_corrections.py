"""By node and hour: what corrections changed stands beside what was reported, with its events."""

from datetime import timedelta

from django.db import connection

from accounts.models import Subscriber
from invoicing import assurance
from usage import corrections, proof, rerating
from usage.models import Amendment, Node, UsageEvent, Weight
from usage.normalising import Counts
from usage.profiles import set_terms
from usage.weights import correct_weight

from .test_node_assurance import (
    BORN,
    DAY,
    HOUR,
    MINUTE,
    NOON,
    assure,
    count,
    event,
    hour,
    node,
    send,
    subscriber,
)

__all__ = ["node", "subscriber"]  # the same small carrier

AMOUNTS = ("accepted_mt", "debited_mt", "overage_mt", "uncovered_mt", "invoiced_mt")


def amounts(row: dict[str, int], prefix: str = "") -> list[int]:
    return [row[f"{prefix}{name}"] for name in AMOUNTS]


def stored(name: str) -> UsageEvent:
    return UsageEvent.objects.get(event_id=name)


def amend(name: str, tokens: int) -> Amendment:
    return corrections.amend(
        event_id=stored(name).pk, counts=Counts(tokens, 0, 0, 0), actor="clerk", reason="recount",
        key=f"amend:{name}:{tokens}", now=NOON + HOUR,
    )  # fmt: skip


def test_an_amendment_and_a_void_stand_beside_what_was_reported(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("a", 100), event("b", 30, at=NOON - HOUR), event("c", 5))
    less = amend("a", 60)
    gone = corrections.void(
        event_id=stored("b").pk, actor="clerk", reason="twice", key="v", now=NOON + HOUR
    )
    report = assure()
    twelve, eleven = hour(report, 12), hour(report, 11)
    assert amounts(twelve) == [105_000, 105_000, 0, 0, 0]
    assert amounts(twelve, "correction_") == [-40_000, -40_000, 0, 0, 0]
    assert amounts(twelve, "corrected_") == [65_000, 65_000, 0, 0, 0]
    assert (twelve["corrections"], twelve["correction_tokens"]) == (1, -40)
    assert twelve["corrected_tokens"] == 65
    assert twelve["amendments"] == [
        {"amendment": less.pk, "event": less.event_id, "kind": "amend", "tokens": -40,
         "mt": -40_000}
    ]  # fmt: skip
    assert amounts(eleven, "corrected_") == [0, 0, 0, 0, 0]
    assert [one["amendment"] for one in eleven["amendments"]] == [gone.pk]
    (total,) = report["nodes"]
    assert (total["corrections"], total["corrected_accepted_mt"]) == (2, 65_000)
    assert report["differences"] == []


def test_what_is_corrected_adds_up_to_the_proof_of_the_period(
    node: Node, subscriber: Subscriber
) -> None:
    set_terms(
        subscriber_id=subscriber.pk, beyond="payg", payg_fen_per_million=400,
        payg_cap_mt=50_000, now=BORN,
    )  # fmt: skip
    send(node, event("a", 999_990), event("b", 100))
    amend("b", 20)  # 40 uncovered and 40 priced go first
    amend("a", 999_999)  # charged like new usage
    (row,) = assure()["nodes"]
    assert amounts(row) == [1_000_090_000, 1_000_000_000, 50_000, 40_000, 0]
    assert amounts(row, "corrected_") == [1_000_019_000, 1_000_000_000, 19_000, 0, 0]
    whole = assurance.assure(start=DAY, end=DAY + timedelta(days=1))
    assert [whole[name] for name in AMOUNTS[:4]] == amounts(row, "corrected_")[:4]
    assert proof.verify() == []


def test_a_period_rated_again_shows_its_difference_and_no_raw_tokens(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("a", 100), event("b", 50))
    correct_weight(
        weight_id=Weight.objects.get().pk, input_milli=500, cached_milli=500, output_milli=500,
        reasoning_milli=500, actor="clerk", reason="half", now=NOON + MINUTE,
    )  # fmt: skip
    found = rerating.dry_run(
        model_code="plain", start=NOON - HOUR, end=NOON + HOUR, actor="clerk", reason="half",
        now=NOON + HOUR,
    )  # fmt: skip
    rerating.begin(rerating_id=found.pk, actor="clerk", now=NOON + HOUR)
    rerating.apply(rerating_id=found.pk, clock=lambda: NOON + HOUR)
    row = hour(assure(), 12)
    assert (row["corrections"], row["correction_tokens"]) == (2, 0)
    assert (row["accepted_mt"], row["corrected_accepted_mt"]) == (150_000, 75_000)
    assert {one["kind"] for one in row["amendments"]} == {"rerate"}


def test_a_report_that_staff_recounted_explains_the_difference_to_the_counters(
    node: Node, subscriber: Subscriber
) -> None:
    send(node, event("a", 100))
    count(node, 60, at=NOON + MINUTE)
    (found,) = assure()["differences"]
    assert (found["expected"], found["found"], found["amendments"]) == (60, 100, [])
    amend("a", 70)  # not all of it
    (found,) = assure()["differences"]
    assert [one["tokens"] for one in found["amendments"]] == [-30]
    amend("a", 60)
    report = assure()
    assert report["differences"] == []
    assert hour(report, 12)["difference_tokens"] == -40


def test_a_correction_that_nobody_paid_exactly_is_named(node: Node, subscriber: Subscriber) -> None:
    send(node, event("a", 100))
    less = amend("a", 60)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            "UPDATE usage_ledgerentry SET amount_mt = amount_mt - 1 WHERE event_id = %s", [less.pk]
        )
        cursor.execute("SET session_replication_role = origin")
    (found,) = assure()["differences"]
    assert found == {
        "rule": "correction mt = debited + overage + uncovered",
        "where": "n1 2026-11-24T12:00:00+08:00",
        "expected": -40_000,
        "found": -39_999,
        "events": [{"event": less.event_id, "amendment": less.pk}],
    }
