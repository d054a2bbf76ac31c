"""Refused events are kept, and get a second chance when the cause is mended."""

import pytest

from accounts import lifecycle
from accounts.models import Account
from usage import proof, quarantine
from usage.models import Bucket, Node, QuarantinedEvent, UsageBatch, UsageEvent
from usage.quarantine import ReplayRefused
from usage.weights import put_model, put_weight

from .conftest import BORN, HOUR, NOON, counts, event, left, send

STRANGER = "+8613911111111"


def held(**which: str) -> list[int]:
    return list(QuarantinedEvent.objects.filter(**which).values_list("id", flat=True))


def replay(ids: list[int]) -> tuple[int, int, int, int]:
    [result] = quarantine.replay(quarantined_ids=ids, actor="clerk", now=NOON + HOUR)
    return counts(result)


def join(account: Account) -> None:
    lifecycle.create_subscriber(
        account_id=account.pk, msisdn=STRANGER, actor="c", reason="r", now=NOON, number_from=BORN
    )


def test_an_unknown_subscribers_usage_counts_once_it_is_known(node: Node, account: Account) -> None:
    send(node, event("e1", 5, subject=STRANGER))
    assert replay(held()) == (0, 0, 0, 1)
    assert held(state="open") == held()[:1]  # the replay's own copy is settled
    join(account)
    assert replay(held(state="open")) == (1, 0, 0, 0)
    settled = QuarantinedEvent.objects.get(state="replayed")
    assert settled.replay_batch_id is not None
    batch = UsageBatch.objects.get(pk=settled.replay_batch_id)
    assert (batch.kind, settled.settled_by, batch.node_id) == ("replay", "clerk", node.pk)
    with pytest.raises(ReplayRefused):
        replay(held())
    assert UsageEvent.objects.count() == 1
    assert proof.verify() == []


def test_what_the_node_sent_again_meanwhile_is_found_to_be_counted(
    node: Node, account: Account
) -> None:
    send(node, event("e1", 5, subject=STRANGER))
    join(account)
    send(node, event("e1", 5, subject=STRANGER))
    assert replay(held()) == (0, 1, 0, 0)
    assert held(state="open") == []
    assert UsageEvent.objects.count() == 1


def test_an_unknown_model_counts_once_it_has_a_weight(node: Node, month: Bucket) -> None:
    send(node, event("e1", 5, model="newest"))
    put_model(code="newest", name="Newest", aliases=[], now=NOON)
    assert replay(held(state="open")) == (0, 0, 0, 1)
    put_weight(
        model_code="newest", input_milli=2000, cached_milli=0, output_milli=0, reasoning_milli=0,
        valid_from=BORN, now=NOON,
    )  # fmt: skip
    assert replay(held(state="open")) == (1, 0, 0, 0)
    assert left(month) == 990_000


def test_a_conflict_stays_one(node: Node, month: Bucket) -> None:
    send(node, event("e1", 5), event("e1", 6))
    assert replay(held()) == (0, 0, 1, 0)
    assert len(held(state="open")) == 1
    assert left(month) == 995_000


def test_a_mixed_replay_settles_only_what_now_counts(node: Node, account: Account) -> None:
    batch = [event("e1", 5, subject=STRANGER), event("e2", 5, model="nope"), event("e3", -5)]
    send(node, *batch)
    join(account)
    assert replay(held()) == (1, 0, 0, 2)
    assert sorted(QuarantinedEvent.objects.filter(state="open").values_list("code", flat=True)) == [
        "invalid_event",
        "unknown_subscriber",
    ]
    assert proof.verify() == []


def test_a_dismissed_event_stays_as_evidence_and_never_counts(node: Node, account: Account) -> None:
    send(node, event("e1", 5, subject=STRANGER))
    join(account)
    assert quarantine.dismiss(quarantined_ids=held(), actor="clerk", now=NOON) == 1
    assert quarantine.dismiss(quarantined_ids=held(), actor="clerk", now=NOON) == 0
    row = QuarantinedEvent.objects.get()
    assert (row.state, row.settled_by) == ("dismissed", "clerk")
    with pytest.raises(ReplayRefused):
        replay(held())
    assert not UsageEvent.objects.exists()


def test_each_nodes_events_are_replayed_as_its_own(node: Node, account: Account) -> None:
    from usage.nodes import create_node

    other, _token = create_node(name="n2", now=BORN)
    send(node, event("e1", 5, subject=STRANGER))
    send(other, event("e1", 5, subject=STRANGER, source="n2"))
    join(account)
    results = quarantine.replay(quarantined_ids=held(), actor="clerk", now=NOON + HOUR)
    assert [counts(one) for one in results] == [(1, 0, 0, 0)] * 2
    assert set(UsageEvent.objects.values_list("node_id", flat=True)) == {node.pk, other.pk}
    assert quarantine.combined(results).accepted == 2
