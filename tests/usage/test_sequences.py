"""A node may number its batches; what is missing is told to it until it arrives."""

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import Subscriber
from usage import sequences, tasks
from usage.models import Node, SequenceMark, UsageBatch
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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty numbers stand for the ten thousand that are looked at each time."""
    monkeypatch.setattr(sequences, "RECENT_NUMBERS", 20)
    monkeypatch.setattr(sequences, "MOST_KEPT", 150)


@pytest.mark.usefixtures("few")
def test_the_newest_hundred_gaps_are_told(node: Node) -> None:
    number(node, *range(0, 1000, 2))
    for _look in range(2):
        told = sequences.sequence_of(node_id=node.pk)
        assert told.last == 998
        assert len(told.gaps) == sequences.MOST_GAPS
        assert told.gaps[-1] == (997, 997)
        assert told.gaps == sorted(told.gaps)
        tasks.look_at_sequences()
    mark = SequenceMark.objects.get()
    assert len(mark.gap_starts) == len(mark.gap_ends) == 150
    assert (mark.upto, mark.gap_ends[-1]) == (960, 959)


@pytest.mark.usefixtures("few")
def test_a_gap_is_told_until_it_is_filled_however_many_numbers_follow(node: Node) -> None:
    number(node, 0, 5, *range(7, 30))
    for _look in range(3):
        assert sequences.sequence_of(node_id=node.pk).gaps == [(1, 4), (6, 6)]
        tasks.look_at_sequences()
        assert SequenceMark.objects.get().upto == 10
    number(node, 3, 60)
    gaps = [(1, 2), (4, 4), (6, 6), (30, 59)]
    assert sequences.sequence_of(node_id=node.pk).gaps == gaps
    number(node, *range(30, 60))
    for _look in range(2):
        assert sequences.sequence_of(node_id=node.pk).gaps == gaps[:3]
        tasks.look_at_sequences()
        assert SequenceMark.objects.get().upto == 41
    number(node, 1, 2, 4, 4)
    assert sequences.sequence_of(node_id=node.pk) == sequences.Sequence(60, [(6, 6)])


@pytest.mark.usefixtures("few")
def test_numbers_below_the_mark_are_read_no_more(node: Node) -> None:
    number(node, 0, *range(50, 60))
    SequenceMark.objects.create(node=node, upto=50, gap_starts=[7], gap_ends=[8])
    assert sequences.sequence_of(node_id=node.pk).gaps == [(7, 8)]


@pytest.mark.usefixtures("few")
def test_few_numbers_need_no_mark_and_nodes_keep_their_own(node: Node) -> None:
    other, _token = create_node(name="n2", now=BORN)
    number(node, 0, *range(2, 22))
    number(other, 1, 3)
    tasks.look_at_sequences()
    assert [mark.node_id for mark in SequenceMark.objects.all()] == [node.pk]
    assert sequences.sequence_of(node_id=node.pk).gaps == [(1, 1)]
    assert sequences.sequence_of(node_id=other.pk).gaps == [(2, 2)]
