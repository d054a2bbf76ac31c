"""Whatever happens between reports: what a process remembers of buckets is what is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.usage.memories import remembered_rightly
from usage import ingest as ingest_module
from usage import proof
from usage.database import Cursor
from usage.remembering import Hold, Memory
from usage.standing import Profile

from .facts import BORN, GRANTED, STEP, WORDS, act, prepare
from .world import BucketDraft, EventDraft, World, any_buckets, bounded


class Eager(Memory):
    """Remembers whom it charges for the first time already."""

    def hold(self, cursor: Cursor, profiles: Mapping[int, Profile]) -> Hold:
        self._seen |= dict.fromkeys(profiles)
        return super().hold(cursor, profiles)


@dataclass(frozen=True)
class Report:
    """A report of these people's usage to a process, maybe after an attempt that came to nothing;
    process 2 remembers nobody."""

    people: tuple[int, ...]
    tokens: int
    process: int
    fails_first: bool


REPORTS = st.builds(
    Report,
    people=st.sampled_from([(0,), (1,), (0, 1), (0, 1, 2), (2, 2)]),
    tokens=st.integers(0, 25),
    process=st.sampled_from([0, 0, 0, 1, 2]),
    fails_first=st.booleans(),
)


def fail(*_arguments: Any, **_named: Any) -> None:
    """A bug, or a server that is away, once all is charged."""
    raise ZeroDivisionError


def report(world: World, memories: list[Memory], one: Report, number: int, now: datetime) -> None:
    drafts = [EventDraft(person, one.tokens, STEP / 2) for person in one.people]
    events = [draft.body(world, f"{number}-{i}", now=now) for i, draft in enumerate(drafts)]
    if one.process == len(memories):
        world.ingest(events, now=now)
        return
    memory = memories[one.process]
    if one.fails_first:
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(ingest_module, "record", fail)
            with pytest.raises(ZeroDivisionError):
                world.ingest_by(memory, events, now=now)
        remembered_rightly(memory)
    assert world.ingest_by(memory, events, now=now).tally.accepted == len(events)


def test_what_is_remembered_is_what_is_stored_whatever_happens_in_between(world: World) -> None:
    prepare(world)
    used = 0

    @bounded(12)
    @given(steps=st.lists(st.one_of(REPORTS, REPORTS, any_buckets(), WORDS), min_size=15))
    def holds(steps: list[Any]) -> None:
        nonlocal used
        memories: list[Memory] = [Eager(), Eager()]
        with world.example():
            for number, step in enumerate([*GRANTED, *steps]):
                now = BORN + (number + 1) * STEP
                if isinstance(step, Report):
                    report(world, memories, step, number, now)
                elif isinstance(step, BucketDraft):
                    world.grant(step, f"b{number}", now=now)
                else:
                    act(world, step, number, now)
                used += sum(map(remembered_rightly, memories))
            assert proof.verify() == []

    holds()
    assert used > 100
