"""What is voided is as if it had never been: buckets, pools, caps, overage, to the last mt.

- Voids and amendments in any order, of members of a pool with caps and of buckets of every kind:
  once everything is voided, all is as it was granted.
- Taken back in reverse order, each event leaves what stood before it.
- Amended, the last event leaves what it would have left had it been told right at once.
- Buckets that are void or closed by then stay empty, and give nobody a token.
- After every step nobody is blocked who could use a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from usage import balances as balances_of
from usage import corrections, enforcement, ledger, movements, pools, profiles, proof
from usage.models import Bucket, Movement, UsageEvent
from usage.models.pools import UNCAPPED
from usage.normalising import Counts

from .world import (
    HOURS,
    NOW,
    PERIODS,
    BucketDraft,
    EventDraft,
    World,
    balances,
    bounded,
    rows,
)

WHY = {"actor": "clerk", "reason": "property"}
SECOND = timedelta(seconds=1)
TOKENS = st.sampled_from([10, 40, 0, 150, 61])


@dataclass(frozen=True)
class Person:
    """Whether somebody is in the pool, up to what, since when, and what the plan sells beyond."""

    joined: timedelta | None  # before NOW
    cycle_cap_mt: int
    day_cap_mt: int
    payg_cap_mt: int
    pool_first: bool


PEOPLE = st.lists(
    st.builds(
        Person,
        joined=st.sampled_from([*[timedelta(days=30)] * 4, timedelta(days=8), None]),
        cycle_cap_mt=st.sampled_from([UNCAPPED, UNCAPPED, 0, 90_000]),
        day_cap_mt=st.sampled_from([UNCAPPED, UNCAPPED, 25_000]),
        payg_cap_mt=st.sampled_from([0, 0, 0, 60_000]),
        pool_first=st.booleans(),
    ),
    min_size=3,
    max_size=3,
)
# Few sizes and times, far apart: so that a few examples meet several buckets, days and ends.
EVENT = st.builds(
    EventDraft,
    person=st.sampled_from([0, 1, 2]),
    tokens=st.sampled_from([60, 25, 110, 3, 0]),
    ago=st.sampled_from(
        [timedelta(days=6, hours=3), timedelta(hours=1), timedelta(days=1), timedelta(days=10)]
    ),
    model=st.sampled_from(["plain", "plain", "fine"]),
)
EVENTS = st.lists(EVENT, min_size=2, max_size=8)
BUCKET = st.builds(
    BucketDraft,
    owner=st.sampled_from([3, 0, 1, 2, 3]),
    mt=st.sampled_from([20_000, 7_000, 50_000, 1, 200_000]),
    kind=st.sampled_from(["plan", "pack", "promotion"]),
    period=st.sampled_from([PERIODS[1], PERIODS[2], PERIODS[2], PERIODS[0]]),
    hours=st.sampled_from([HOURS[0], HOURS[0], *HOURS]),
    model=st.sampled_from(["", "", "fine"]),
)


class Story:
    """An example: its events by number, and the verbs that mend them."""

    def __init__(self, world: World, people: Sequence[Person], grants: Sequence[BucketDraft]):
        self.world, self.keys, self.now = world, count(), NOW
        self.alive: list[int] = []
        for number, draft in enumerate(grants):
            world.grant(draft, f"b{number}", now=draft.period[0])
        for place, person in enumerate(people):
            profiles.set_terms(
                subscriber_id=world.people[place].pk,
                beyond="payg" if person.payg_cap_mt else "stop",
                payg_fen_per_million=400, payg_cap_mt=person.payg_cap_mt,
                pool_first=person.pool_first, now=NOW,
            )  # fmt: skip
            if person.joined is not None:
                caps = {"cycle_cap_mt": person.cycle_cap_mt, "day_cap_mt": person.day_cap_mt}
                world.join_pool(place, now=NOW - person.joined, **caps)
        enforcement.sweep(now=NOW)  # who joined before the pool had anything

    def use(self, draft: EventDraft) -> int:
        """Report an event; its number."""
        name = f"e{next(self.keys)}"
        assert self.world.ingest([draft.body(self.world, name)], now=self.now).tally.accepted == 1
        number = UsageEvent.objects.get(event_id=name).pk
        self.alive.append(number)
        return number

    def amend(self, number: int, tokens: int) -> None:
        """Let an event count so many; nothing when it counts them already."""
        counts, key = Counts(tokens, 0, 0, 0), f"k{next(self.keys)}"
        try:
            corrections.amend(event_id=number, counts=counts, key=key, now=self.now, **WHY)
        except corrections.CorrectionRefused:
            return

    def void(self, number: int) -> None:
        """Take an event back."""
        self.alive.remove(number)
        key = f"k{next(self.keys)}"
        corrections.void(event_id=number, key=key, now=self.now, **WHY)

    def nobody_is_shut_out(self) -> None:
        """Whoever could use a token may."""
        for person in self.world.people:
            has = balances_of.balance(subscriber_id=person.pk, now=self.now)
            assert not (has.usable_mt and has.blocked), "blocked with tokens in hand"

    def state(self) -> dict[str, Any]:
        """All that usage moves, proven, without what is back at nothing."""
        assert proof.verify() == []
        return {
            "balances": balances(),
            "pool": rows("SELECT subscriber_id, day, mt FROM usage_poolusage WHERE mt <> 0"
                         " ORDER BY 1, 2"),
            "beyond": rows("SELECT subscriber_id, cycle, priced_mt, uncovered_mt"
                           "  FROM usage_cycleoverage WHERE (priced_mt, uncovered_mt) <> (0, 0)"
                           " ORDER BY 1, 2"),
        }  # fmt: skip


def a_story(world: World, data: st.DataObject, *more: BucketDraft) -> Story:
    """Three people with their plans, and buckets of theirs and of the pool."""
    grants = data.draw(st.lists(BUCKET, min_size=2, max_size=6))
    return Story(world, data.draw(PEOPLE), [*grants, *more])


def maybe(data: st.DataObject) -> bool:
    """Yes or no."""
    return data.draw(st.booleans())


def meddle(story: Story, data: st.DataObject) -> None:
    """Amend or void any event that stands."""
    number = data.draw(st.sampled_from(story.alive))
    if data.draw(st.integers(0, 3)):
        story.amend(number, data.draw(TOKENS))
    else:
        story.void(number)


def test_once_all_is_voided_all_is_as_it_was_granted(world: World) -> None:
    @bounded(15)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        with world.example():
            story = a_story(world, data)
            before = story.state()
            for draft in data.draw(EVENTS):
                story.use(draft)
                while story.alive and maybe(data):
                    meddle(story, data)
                    story.nobody_is_shut_out()
            for number in data.draw(st.permutations(story.alive)):
                story.void(number)
                story.nobody_is_shut_out()
            assert story.state() == before

    holds()


def test_taken_back_in_reverse_each_event_leaves_what_stood_before_it(world: World) -> None:
    @bounded(10)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        with world.example():
            story = a_story(world, data)
            stood = []
            for draft in data.draw(EVENTS):
                stood.append((story.state(), number := story.use(draft)))
                for tokens in data.draw(st.lists(TOKENS, max_size=3)):
                    story.amend(number, tokens)
            for before, number in reversed(stood):
                story.void(number)
                assert story.state() == before
            story.nobody_is_shut_out()

    holds()


def test_an_event_that_is_amended_leaves_what_it_would_have_left_if_told_right(
    world: World,
) -> None:
    @bounded(15)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        outcomes = []
        several = [BucketDraft(p, 20_000, kind=k) for p in (0, 1, 2) for k in ("pack", "promotion")]
        with world.example():
            story = a_story(world, data, *several)
            if maybe(data):
                ledger.close_due_buckets(now=NOW)
            for draft in data.draw(st.lists(EVENT, max_size=3)):
                story.use(draft)
            last = data.draw(EVENT)
            told = data.draw(st.lists(TOKENS, min_size=1, max_size=3))
            for first, amended in ((last.tokens, told), (told[-1], [])):
                with world.example():
                    number = story.use(replace(last, tokens=first))
                    for tokens in amended:
                        story.amend(number, tokens)
                    outcomes.append(story.state())
        assert outcomes[0] == outcomes[1]

    holds()


def test_void_and_closed_buckets_stay_empty_and_the_others_are_whole(world: World) -> None:
    @bounded(15)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        with world.example():
            story = a_story(world, data)
            if maybe(data):
                ledger.close_due_buckets(now=NOW)
            for draft in data.draw(EVENTS):
                story.use(draft)
                if maybe(data):
                    disturb(story, data)
                if story.alive and maybe(data):
                    meddle(story, data)
                story.nobody_is_shut_out()
            for number in data.draw(st.permutations(story.alive)):
                story.void(number)
            story.nobody_is_shut_out()
            gone = set(Movement.objects.filter(kind="void").values_list("bucket_id", flat=True))
            for bucket in Bucket.objects.all():
                lost = bucket.closed_at is not None or bucket.pk in gone
                assert bucket.remaining_mt == (0 if lost else bucket.granted_mt)
            assert (story.state()["pool"], story.state()["beyond"]) == ([], [])

    holds()


def disturb(story: Story, data: st.DataObject) -> None:
    """What may happen between usage and its correction."""
    story.now += SECOND
    match data.draw(st.sampled_from(["void", "close", "leave", "caps"])):
        case "void":
            bucket = data.draw(st.sampled_from(list(Bucket.objects.order_by("id"))))
            if bucket.closed_at is None and not bucket.movements.exists():
                key = f"v{bucket.pk}"
                movements.void_bucket(bucket_id=bucket.pk, key=key, now=story.now, **WHY)
        case "close":
            ledger.close_due_buckets(now=story.now)
        case "leave":
            for place in members(story)[:1]:
                pools.leave(
                    pool_id=story.world.pool.pk, subscriber_id=place, actor="c", now=story.now
                )
        case "caps":
            for place in members(story)[:1]:
                pools.set_caps(
                    pool_id=story.world.pool.pk, subscriber_id=place, actor="c", now=story.now,
                    cycle_cap_mt=data.draw(st.sampled_from([0, 10_000, UNCAPPED])),
                    day_cap_mt=UNCAPPED,
                )  # fmt: skip


def members(story: Story) -> list[int]:
    """Who is in the pool, in order."""
    rows = story.world.pool.members.filter(left_at=None).order_by("subscriber_id")
    return list(rows.values_list("subscriber_id", flat=True))
