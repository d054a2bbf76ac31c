"""What a process remembers of buckets, by itself: who takes, who puts back, who goes first."""

from typing import Any

import pytest

from usage.remembering import Hold, Memory
from usage.waterfall import OpenBucket

from .conftest import START


@pytest.fixture
def memory() -> Memory:
    return Memory()


class FakeCursor:
    """Answers with when the server was started, and keeps who was claimed."""

    def __init__(self) -> None:
        self.server = START
        self.claimed: list[str] = []

    def execute(self, _statement: str, row: Any = None, **_more: Any) -> "FakeCursor":
        if row:
            self.claimed.append(row["ids"])
        return self

    def fetchall(self) -> list[Any]:
        return [(self.server,)]


class Profiles(dict[int, Any]):
    """As they are once locked: what was claimed is stored."""

    def __init__(self, *owners: int) -> None:
        super().__init__({owner: _Profile() for owner in owners})


class _Profile:
    remembered_by = 0


def some_bucket(mt: int) -> list[OpenBucket]:
    return [OpenBucket(1, 20, 9, True, 1, 1, 0, mt, 100)]


def taken(memory: Memory, profiles: Profiles, *, new: bool = True) -> Hold:
    hold = memory.hold(FakeCursor(), profiles)  # type: ignore[arg-type]
    for owner in hold.new:
        profiles[owner].remembered_by = memory._process
    return hold


def test_who_comes_late_with_an_outcome_does_not_overwrite_the_next_one(memory: Memory) -> None:
    profiles = Profiles(1)
    taken(memory, profiles)
    first = taken(memory, profiles)  # committed, but its thread sleeps
    second = taken(memory, profiles)
    assert second.found == {}
    memory.keep(second, {1: some_bucket(50)})
    memory.keep(first, {1: some_bucket(70)})
    assert taken(memory, profiles).found == {1: some_bucket(50)}


def test_nor_when_the_next_one_is_still_at_work(memory: Memory) -> None:
    profiles = Profiles(1)
    taken(memory, profiles)
    first = taken(memory, profiles)
    second = taken(memory, profiles)
    memory.keep(first, {1: some_bucket(70)})
    memory.keep(second, {1: some_bucket(50)})
    assert taken(memory, profiles).found == {1: some_bucket(50)}


def test_whom_others_charge_too_is_not_claimed_at_once_again(memory: Memory) -> None:
    profiles = Profiles(1)
    assert not taken(memory, profiles).owners
    memory.keep(taken(memory, profiles), {1: some_bucket(50)})
    profiles[1].remembered_by = 0
    assert [taken(memory, profiles).new for _turn in range(3)] == [[], [], [1]]


def test_equal_times_and_sizes_are_kept_once(memory: Memory) -> None:
    profiles = Profiles(1, 2)
    taken(memory, profiles)
    first, second = some_bucket(50), some_bucket(70)
    for one, day in ((first, "1" * 16), (second, "1" * 16)):
        one[0].valid_until = int(day)
    memory.keep(taken(memory, profiles), {1: first, 2: second})
    assert first[0].valid_until is second[0].valid_until
    assert (first[0].available_mt, second[0].available_mt) == (50, 70)


def test_no_more_are_remembered_than_there_is_room_for() -> None:
    memory = Memory(most=2)
    profiles = Profiles(*range(1, 6))
    for _turn in range(3):
        for owner in profiles:
            one = Profiles()
            one[owner] = profiles[owner]
            memory.keep(taken(memory, one), {owner: some_bucket(owner)})
            assert len(memory._kept) <= 2
            assert len(memory._seen) <= 2
    pair = Profiles(4, 5)
    for _turn in range(2):
        memory.keep(taken(memory, pair), {4: some_bucket(4), 5: some_bucket(5)})
    assert set(taken(memory, pair).found) == {4, 5}
