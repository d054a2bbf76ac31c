"""Any order, any repeats, any batches: what stays the same, and what rightly does not.

- Always: what was accepted, and accepted = debited + overage + uncovered.
- Of one person whose buckets pay for all of the events alike, in one cycle: everything, to the
  balance of each bucket. Which event a bucket paid for is the only difference.
- Of the members of a pool who draw on their own first: the balance of each bucket and the sums
  over all members. Who of them came too late depends on who came first.
- Of anything at all (restricted models, hours, other validities, caps): everything, down to the
  single entry, however the stream is cut into batches and repeated, as long as no event comes
  in a batch before that of an earlier event. Within a batch their order is of no matter.

Where buckets differ in what they pay for, an event that comes first may take tokens that only a
later one could not do without; the waterfall looks at one event after the other and takes nothing
back. The last test keeps such a case. A cap on priced overage is of one cycle, so events of two
cycles share buckets but not caps, and their order tells which of them is left without.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.usage.conftest import END
from usage import ledger, profiles, proof

from .world import (
    BUCKETS,
    NOW,
    BucketDraft,
    EventDraft,
    World,
    any_buckets,
    any_events,
    balances,
    bounded,
    plain_buckets,
    rows,
    totals_by_person,
)

Batches = list[list[dict[str, Any]]]
IN_NOVEMBER = 23  # whole days before NOW


def sell_beyond(world: World, caps: Sequence[int]) -> None:
    """Pay as you go up to these caps (mt; 0: stop)."""
    for person, cap in zip(world.people, caps, strict=True):
        profiles.set_terms(
            subscriber_id=person.pk, beyond="payg" if cap else "stop",
            payg_fen_per_million=400, payg_cap_mt=cap, now=NOW,
        )  # fmt: skip


def outcome(world: World, grants: Sequence[BucketDraft], batches: Batches) -> dict[str, Any]:
    """Live it; answer with all that is left of it."""
    for number, draft in enumerate(grants):
        world.grant(draft, f"b{number}", now=draft.period[0])
    ledger.close_due_buckets(now=NOW)
    for batch in batches:
        tally = world.ingest(batch).tally
        assert tally.received == tally.accepted + tally.duplicate
        assert tally.accepted_mt == tally.debited_mt + tally.overage_mt + tally.uncovered_mt
    assert proof.verify() == []
    return {
        "people": totals_by_person(),
        "balances": balances(),
        "blocked": rows("SELECT subscriber_id, blocked FROM usage_chargingprofile ORDER BY 1"),
        "entries": rows(ENTRIES),
        "beyond": rows(BEYOND),
    }


ENTRIES = f"""
    SELECT event.event_id, bucket.name, entry.amount_mt
      FROM usage_ledgerentry AS entry
      JOIN {BUCKETS} ON bucket.id = entry.bucket_id
      JOIN usage_usageevent AS event ON event.id = entry.event_id
     ORDER BY 1, 2
"""  # noqa: S608 (of our own words)

BEYOND = """
    SELECT event.event_id, overage.cycle, overage.priced, overage.mt
      FROM usage_overage AS overage JOIN usage_usageevent AS event ON event.id = overage.event_id
     ORDER BY 1, 3
"""


@st.composite
def arranged(draw: st.DrawFn, count: int) -> list[list[int]]:
    """Any order of `count` events in any batches, each once at least and some again."""
    order = draw(st.permutations(range(count)))
    again = draw(st.lists(st.integers(0, count - 1), max_size=6))
    stream = [*order, *again]
    # A repeat may come before what it repeats: then that is the repeat.
    stream = draw(st.permutations(stream))
    cuts = sorted(draw(st.sets(st.integers(1, len(stream) - 1), max_size=5))) if count > 1 else []
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@st.composite
def cut(draw: st.DrawFn, count: int) -> list[list[int]]:
    """The events of 0 to `count` cut anywhere, in any order within a batch, and repeats of what
    was sent before or in the same batch."""
    cuts = sorted(draw(st.sets(st.integers(1, count - 1), max_size=5))) if count > 1 else []
    batches = []
    for start, end in zip([0, *cuts], [*cuts, count], strict=True):
        again = draw(st.lists(st.integers(0, end - 1), max_size=3))
        batches.append(draw(st.permutations([*range(start, end), *again])))
    return batches


def bodies(world: World, drafts: Sequence[EventDraft], batches: list[list[int]]) -> Batches:
    return [[drafts[number].body(world, f"e{number}") for number in numbers] for numbers in batches]


def both(
    world: World, grants: Sequence[BucketDraft], events: Sequence[EventDraft],
    first: list[list[int]], second: list[list[int]], caps: Sequence[int] = (0, 0, 0),
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """What becomes of two arrangements of the same events."""
    outcomes = []
    for batches in (first, second):
        with world.example():
            sell_beyond(world, caps)
            outcomes.append(outcome(world, grants, bodies(world, events, batches)))
    return outcomes[0], outcomes[1]


def test_any_order_gives_one_person_the_same_totals_and_balances(world: World) -> None:
    @bounded(25)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        grants = data.draw(st.lists(plain_buckets(owners=[0, 1, 2]), max_size=6))
        events = data.draw(st.lists(any_events(days=IN_NOVEMBER), min_size=1, max_size=12))
        caps = data.draw(st.tuples(*[st.sampled_from([0, 1, 100_000])] * 3))
        order = data.draw(arranged(len(events)))
        inorder = [list(range(len(events)))]
        one, other = both(world, grants, events, inorder, order, caps)
        for name in ("people", "balances", "blocked"):
            assert one[name] == other[name]
        assert sum(draft.mt for draft in events) == sum(row[0] for row in one["people"].values())

    holds()


def test_any_order_takes_the_same_from_the_buckets_of_a_pool(world: World) -> None:
    for person in (0, 1):
        world.join_pool(person, now=NOW - timedelta(days=30))

    @bounded(25)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        grants = data.draw(st.lists(plain_buckets(owners=[0, 1, 2, 3, 3]), max_size=6))
        events = data.draw(st.lists(any_events(days=IN_NOVEMBER), min_size=1, max_size=12))
        order = data.draw(arranged(len(events)))
        one, other = both(world, grants, events, [list(range(len(events)))], order)
        assert one["balances"] == other["balances"]
        sums = [[sum(row) for row in zip(*o["people"].values(), strict=True)] for o in (one, other)]
        assert sums[0] == sums[1]
        accepted = [{owner: row[0] for owner, row in o["people"].items()} for o in (one, other)]
        assert accepted[0] == accepted[1]

    holds()


def test_a_stream_may_be_cut_anywhere_and_repeated(world: World) -> None:
    world.join_pool(0, now=NOW - timedelta(days=20), day_cap_mt=50_000)
    world.join_pool(1, now=NOW - timedelta(days=20), cycle_cap_mt=60_000)

    @bounded(30)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        # The pool has enough, so that it is the caps that end what members take.
        grants = [BucketDraft(3, 10**6), *data.draw(st.lists(any_buckets(), max_size=7))]
        drawn = st.lists(any_events(days=40), min_size=1, max_size=12, unique_by=lambda e: e.ago)
        events = sorted(data.draw(drawn), key=lambda draft: -draft.ago)
        caps = data.draw(st.tuples(*[st.sampled_from([0, 1, 100_000])] * 3))
        one, other = both(
            world, grants, events,
            [[number] for number in range(len(events))], data.draw(cut(len(events))), caps,
        )  # fmt: skip
        assert one == other

    holds()


def test_who_comes_first_may_leave_less_to_the_next(world: World) -> None:
    """The plan's bucket pays first and for both; the pack pays only for what was used since."""
    grants = [
        BucketDraft(0, 10_000, kind="plan"),
        BucketDraft(0, 10_000, kind="pack", period=(NOW - timedelta(days=2), END)),
    ]
    early = EventDraft(0, 10, timedelta(days=1))
    late = EventDraft(0, 10, timedelta(days=3))
    one, other = both(world, grants, [early, late], [[0], [1]], [[1], [0]])
    owner = world.people[0].pk
    assert one["people"][owner] == (20_000, 10_000, 0, 10_000)
    assert other["people"][owner] == (20_000, 20_000, 0, 0)
