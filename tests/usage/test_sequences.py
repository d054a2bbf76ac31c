"""A node may number its batches; what is missing is told to it until it arrives."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import Subscriber
from usage import sequences
from usage.models import Node, UsageBatch
from usage.nodes import create_node

from .conftest import BORN, NOON, event

pytestmark = pytest.mark.usefixtures("clock_at_noon")


def number(node: Node, *numbers: int) -> None:
    """Batches with these numbers, as ingest would leave them."""
    first = (UsageBatch.objects.order_by("-id").values_list("id", flat=True).first() or 0) + 1
    nothing = dict.fromkeys(
        ("received", "accepted", "duplicate", "conflict", "rejected")
        + ("accepted_mt", "debited_mt", "overage_mt", "uncovered_mt"),
        0,
    )
    UsageBatch.objects.bulk_create(
        UsageBatch(
            id=first + place, node_id=node.pk, sequence=sequence, received_at=NOON, **nothing
        )
        for place, sequence in enumerate(numbers)
    )


def report(collector: APIClient, query: str, *events: dict[str, Any]) -> Any:
    return collector.post(
        f"/api/v1/usage/events{query}", json.dumps(events), content_type="application/json"
    )


def me(collector: APIClient) -> tuple[int | None, list[list[int]]]:
    answer = collector.get("/api/v1/nodes/me").json()
    return answer["last_sequence"], answer["gaps"]


def test_a_gap_is_told_until_it_is_filled(collector: APIClient, subscriber: Subscriber) -> None:
    assert me(collector) == (None, [])
    for sequence in (7, 8, 11, 15):
        assert report(collector, f"?sequence={sequence}", event(f"e{sequence}", 1)).data["accepted"]
    assert me(collector) == (15, [[9, 10], [12, 14]])
    report(collector, "?sequence=10", event("e10", 1))
    assert me(collector) == (15, [[9, 9], [12, 14]])
    for sequence in (9, 12, 13, 14):
        report(collector, f"?sequence={sequence}")  # an empty batch fills its place too
    assert me(collector) == (15, [])


def test_a_batch_sent_again_repeats_its_number_and_counts_once(
    collector: APIClient, subscriber: Subscriber
) -> None:
    assert report(collector, "?sequence=0", event("a", 5)).data["accepted"] == 1
    assert report(collector, "?sequence=0", event("a", 5)).data["duplicate"] == 1
    assert me(collector) == (0, [])
    assert list(UsageBatch.objects.values_list("sequence", flat=True)) == [0, 0]


def test_batches_without_a_number_open_no_gap(collector: APIClient, subscriber: Subscriber) -> None:
    report(collector, "?sequence=1", event("a", 1))
    report(collector, "", event("b", 1))
    report(collector, "?sequence=2", event("c", 1))
    assert me(collector) == (2, [])


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "1e3", "9223372036854775808", "NaN"])
def test_a_number_that_is_no_whole_number_is_refused_and_nothing_stored(
    collector: APIClient, subscriber: Subscriber, text: str
) -> None:
    answer = report(collector, f"?sequence={text}", event("a", 1))
    assert answer.status_code == 400
    assert not UsageBatch.objects.exists()


def test_the_largest_number_leaves_one_gap_and_costs_no_more(
    collector: APIClient, subscriber: Subscriber
) -> None:
    report(collector, "?sequence=0", event("a", 1))
    report(collector, f"?sequence={2**63 - 1}", event("b", 1))
    assert me(collector) == (2**63 - 1, [[1, 2**63 - 2]])


def test_a_node_sees_its_own_gaps_only(node: Node) -> None:
    other, _token = create_node(name="n2", now=BORN)
    number(node, 1, 3)
    number(other, 1, 2)
    assert sequences.sequence_of(node_id=node.pk).gaps == [(2, 2)]
    assert sequences.sequence_of(node_id=other.pk).gaps == []


def test_the_newest_hundred_gaps_of_the_newest_ten_thousand_numbers_are_told(
    node: Node,
) -> None:
    number(node, *range(0, 40_000, 2))
    told = sequences.sequence_of(node_id=node.pk)
    assert told.last == 39_998
    assert len(told.gaps) == sequences.MOST_GAPS
    assert told.gaps[-1] == (39_997, 39_997)
    assert told.gaps == sorted(told.gaps)


def test_gaps_older_than_ten_thousand_numbers_are_forgotten(node: Node) -> None:
    number(node, 0, *range(2, 2 + sequences.MOST_NUMBERS))
    assert sequences.sequence_of(node_id=node.pk).gaps == []
