"""Processes that share out the subscribers: together they count what one alone would."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from accounts.models import Account, Subscriber
from usage import lanes as lanes_module
from usage import pools, proof, receiving
from usage.arriving import Delivery
from usage.batches import BatchResult
from usage.ingest import Portion
from usage.lanes import Lanes, of_this_machine
from usage.lines import listening
from usage.models import Node, UsageBatch, UsageEvent

from .conftest import NOON, START, counts, event, give, make_subscriber

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clock_at_noon")]
PEOPLE, EVENTS = 6, 120


@pytest.fixture
def two(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Lanes]]:
    """Both lanes of a machine, as two processes would have them."""
    # No thread that answers keeps its connection.
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    yield from joined(folder, 2)


def joined(folder: Path, count: int) -> Iterator[list[Lanes]]:
    machine = [Lanes(folder, count) for _ in range(count)]
    for one in machine:
        one.join()
    yield machine
    for one in machine:
        one.leave()


@pytest.fixture
def crowd(account: Account) -> list[Subscriber]:
    people = [make_subscriber(account, f"+861390000030{number}") for number in range(PEOPLE)]
    for one in people:
        give(one, 200)
    return people


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The subjects named in every part that is counted, part by part."""
    parts: list[list[str]] = []
    take_large = receiving.take_large

    def take(portion: Portion) -> BatchResult:
        parts.append(sorted({item.subject for item in portion.events} - {""}))
        return take_large(portion)

    monkeypatch.setattr(lanes_module, "take_large", take)
    return parts


def report_of(
    crowd: Sequence[Subscriber], name: str = "e", tokens: int = 1
) -> list[dict[str, Any]]:
    return [
        event(f"{name}{number}", tokens, subject=str(crowd[number % len(crowd)].msisdn))
        for number in range(EVENTS)
    ]


def delivery(node: Node, events: Iterable[dict[str, Any]], sequence: int | None = None) -> Delivery:
    raw = [json.dumps(one).encode() for one in events]
    return Delivery(node=node, events=raw, sequence=sequence)


def take(
    lanes: Lanes, node: Node, events: Iterable[dict[str, Any]], sequence: int | None = None
) -> BatchResult:
    return lanes.take(delivery(node, events, sequence), now=NOON)


def test_every_part_is_counted_where_it_belongs_and_answered_as_one(
    two: list[Lanes], node: Node, crowd: list[Subscriber], counted: list[list[str]]
) -> None:
    events = report_of(crowd, tokens=10)
    events[7] = event("strange", 1, subject="+8613911111111")
    events[50] = {"subject": 5}
    events[90] = events[91] | {"data": {"model": "unheard of", "usage": {"prompt_tokens": 1}}}
    for name, lanes in zip("ab", two, strict=True):
        some = [one | {"id": f"{name}{one.get('id')}"} for one in events]
        result = take(lanes, node, some)
        assert counts(result) == (EVENTS - 3, 0, 0, 3)
        assert [one.position for one in result.refusals] == [7, 50, 90]
    assert len(counted) == 4
    here, there = sorted(map(tuple, counted[:2]))
    assert not set(here) & set(there)
    assert sorted(map(tuple, counted[2:])) == [here, there]
    again = take(two[0], node, [one | {"id": f"a{one.get('id')}"} for one in events])
    assert counts(again) == (0, EVENTS - 3, 0, 3)
    assert sorted(again.exhausted) == [(str(one.msisdn), "quota_exhausted") for one in crowd]
    assert UsageEvent.objects.count() == 2 * (EVENTS - 3)
    assert proof.verify() == []


def test_a_number_is_stored_with_what_is_counted_last(
    two: list[Lanes], node: Node, crowd: list[Subscriber], counted: list[list[str]]
) -> None:
    take(two[0], node, report_of(crowd), sequence=7)
    rows = UsageBatch.objects.order_by("id").values_list("sequence", "accepted")
    assert [sequence for sequence, _accepted in rows] == [None, 7]
    assert sum(accepted for _sequence, accepted in rows) == EVENTS
    # Of a report that is all of the other lane, too.
    other = [one for one in crowd if str(one.msisdn) in counted[0]]
    take(two[0], node, report_of(other, "f"), sequence=8)
    assert UsageBatch.objects.get(sequence=8).accepted == EVENTS
    assert len(counted) == 3
    assert proof.verify() == []


def test_a_number_waits_for_the_part_that_fails_elsewhere(
    two: list[Lanes], node: Node, crowd: list[Subscriber], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(portion: Portion) -> BatchResult:
        raise ZeroDivisionError

    monkeypatch.setattr(lanes_module, "take_large", fail)
    with pytest.raises(ZeroDivisionError):
        take(two[0], node, report_of(crowd), sequence=7)
    monkeypatch.undo()
    assert UsageBatch.objects.count() == 0


@pytest.mark.parametrize("who", ["nobody", "dead", "deaf", "broken"])
def test_a_part_that_nobody_counts_elsewhere_is_counted_here(
    folder: Path, node: Node, crowd: list[Subscriber], who: str
) -> None:
    lanes = Lanes(folder, 2)
    lanes.join()
    other = Lanes(folder, 2)
    socket = folder / "1.sock"
    answers = {"deaf": b"no message", "broken": lanes_module._encode(lanes_module.Told(None))}
    if who == "dead":
        other.join()
        other.leave()
        assert socket.exists()
    if who in answers:
        with listening(socket, lambda message: answers[who]):
            result = take(lanes, node, report_of(crowd), sequence=3)
    else:
        result = take(lanes, node, report_of(crowd), sequence=3)
    lanes.leave()
    assert counts(result) == (EVENTS, 0, 0, 0)
    assert UsageBatch.objects.filter(sequence=3).count() == 1
    assert proof.verify() == []


def test_what_the_other_counted_before_it_hung_up_counts_once(
    folder: Path, node: Node, crowd: list[Subscriber], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    for lanes, other in joined(folder, 2):

        def counts_and_dies(message: bytes, other: Lanes = other) -> bytes:
            other._answer(message)
            raise OSError

        other.leave()
        with listening(folder / "1.sock", counts_and_dies):
            result = take(lanes, node, report_of(crowd))
        accepted, duplicate, *others = counts(result)
        assert accepted + duplicate == EVENTS
        assert accepted and duplicate
        assert others == [0, 0]
        assert UsageEvent.objects.count() == EVENTS
        assert proof.verify() == []


def test_members_are_counted_in_the_lane_of_their_pool(
    two: list[Lanes], node: Node, crowd: list[Subscriber], counted: list[list[str]]
) -> None:
    account = crowd[0].account_id
    for name in ("Wang", "Li"):
        pool = pools.create_pool(account_id=account, name=name, kind="family", now=START)
        for one in crowd[:3] if name == "Wang" else crowd[3:]:
            pools.join(pool_id=pool.pk, subscriber_id=one.pk, actor="clerk", now=START)
    families = [sorted(str(one.msisdn) for one in some) for some in (crowd[:3], crowd[3:])]
    for turn in range(4):
        take(two[turn % 2], node, report_of(crowd, f"t{turn}-"))
    # Whoever received it knows by then, from its own counting and from what it was told.
    assert sorted(counted[-2:]) == sorted(counted[-4:-2]) == families
    assert proof.verify() == []


def test_members_of_a_pool_too_busy_for_one_lane_stay_where_they_were(
    two: list[Lanes],
    node: Node,
    crowd: list[Subscriber],
    counted: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = crowd[0].account_id
    pool = pools.create_pool(account_id=account, name="Wang", kind="family", now=START)
    for one in crowd:
        pools.join(pool_id=pool.pk, subscriber_id=one.pk, actor="clerk", now=START)
    take(two[0], node, report_of(crowd, "a"))
    apart = sorted(counted)
    assert len(apart) == 2
    monkeypatch.setattr(lanes_module, "LARGE_POOL", 2)
    for turn in range(3):
        take(two[0], node, report_of(crowd, f"b{turn}"))
    assert sorted(counted[-2:]) == apart
    assert proof.verify() == []


def test_what_is_remembered_has_an_end(two: list[Lanes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "MOST_MOVED", 10)
    for number in range(50):
        two[0]._learn([(f"s{number}", 1)])
        assert len(two[0]._moved) <= 11


def test_a_lane_is_of_one_process_and_free_when_that_is_gone(folder: Path) -> None:
    first, second, third = machine = [Lanes(folder, 2) for _ in range(3)]
    for one in machine:
        one.join()
    assert [one.number for one in machine] == [0, 1, None]
    first.leave()
    third.join()
    assert [one.number for one in machine] == [None, 1, 0]
    second.leave()
    third.leave()


def test_who_found_no_lane_hands_everything_over_and_joins_later(
    two: list[Lanes],
    folder: Path,
    node: Node,
    crowd: list[Subscriber],
    counted: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest = Lanes(folder, 2)
    guest.join()
    assert counts(take(guest, node, report_of(crowd))) == (EVENTS, 0, 0, 0)
    assert len(counted) == 2
    assert [one.number for one in (*two, guest)] == [0, 1, None]
    two[1].leave()
    monkeypatch.setattr(guest, "_try_again", 0.0)
    take(guest, node, report_of(crowd, "f"))
    assert [one.number for one in (*two, guest)] == [0, None, 1]
    guest.leave()


def test_alone_nothing_is_divided(
    folder: Path, node: Node, crowd: list[Subscriber], counted: list[list[str]]
) -> None:
    for count in (0, 1):
        lanes = Lanes(folder, count)
        lanes.join()
        take(lanes, node, report_of(crowd, f"e{count}"))
        lanes.leave()
    assert [len(part) for part in counted] == [PEOPLE, PEOPLE]


def test_processes_of_another_database_are_no_neighbours(
    settings: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    settings.WEB_LANES = 2
    ours = of_this_machine(folder)
    with monkeypatch.context() as elsewhere:
        elsewhere.setitem(settings.DATABASES["default"], "NAME", "another")
        theirs = of_this_machine(folder)
    again = of_this_machine(folder)
    settings.WEB_LANES = 3
    more = of_this_machine(folder)
    assert [one.number for one in (ours, theirs, again, more)] == [0, 0, 1, 0]
    for one in (ours, theirs, again, more):
        one.leave()


def test_the_folder_is_closed_to_others(folder: Path) -> None:
    lanes = Lanes(folder / "own", 1)
    lanes.join()
    assert (folder / "own").stat().st_mode & 0o077 == 0
    lanes.leave()
