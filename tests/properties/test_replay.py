"""A replay of what is stored into an empty database, and periods that are cut anywhere."""

from datetime import date, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from usage import corrections, proof
from usage.models import Bucket, UsageEvent

from .facts import BORN, BY, FULL, STEP, STEPS, exported, live, prepare, replayed
from .test_order import BEYOND, ENTRIES
from .world import (
    BUCKETS,
    World,
    any_buckets,
    any_events,
    balances,
    bounded,
    rows,
    totals_by_person,
)


def state() -> dict[str, Any]:
    """Everything that follows from the facts."""
    assert proof.verify() == []
    return {
        "balances": balances(),
        "people": totals_by_person(),
        "entries": rows(ENTRIES),
        "beyond": rows(BEYOND),
        "blocked": rows("SELECT subscriber_id, blocked FROM usage_chargingprofile ORDER BY 1"),
        "held": rows(HELD),
        "of pools": rows("SELECT subscriber_id, day, mt FROM usage_poolusage ORDER BY 1, 2"),
        "by day": rows(BY_DAY),
    }


HELD = f"SELECT bucket.name, bucket.reserved_mt FROM {BUCKETS} ORDER BY 1"  # noqa: S608 (of ours)

# Repeats are no facts, so only what was accepted is compared.
BY_DAY = """
    SELECT tally.day, SUM(tally.accepted), SUM(tally.accepted_mt), SUM(tally.debited_mt),
           SUM(tally.overage_mt), SUM(tally.uncovered_mt)
      FROM usage_usagetally AS tally
     GROUP BY tally.day HAVING SUM(tally.accepted) > 0 OR SUM(tally.accepted_mt) <> 0
     ORDER BY tally.day
"""


def test_a_replay_of_all_events_reproduces_every_balance(world: World) -> None:
    prepare(world)

    @bounded(15)
    @given(steps=st.lists(STEPS, min_size=6, max_size=16))
    @example(steps=FULL)
    def holds(steps: list[Any]) -> None:
        with world.example():
            live(world, steps)
            lived, facts = state(), exported(world)
        with world.example():
            assert not UsageEvent.objects.exists() and not Bucket.objects.exists()
            replayed(world, facts)
            assert state() == lived

    holds()


def test_a_period_may_be_cut_anywhere(world: World) -> None:
    prepare(world)
    days = st.integers(0, 70).map(lambda day: date(2026, 10, 1) + timedelta(days=day))

    @bounded(12)
    @given(steps=st.lists(STEPS, min_size=4, max_size=14), cuts=st.tuples(days, days, days))
    def holds(steps: list[Any], cuts: tuple[date, date, date]) -> None:
        start, middle, end = sorted(cuts)
        with world.example():
            live(world, steps)
            whole, none = proof.period_totals(start=start, end=end)
            first, no = proof.period_totals(start=start, end=middle)
            second, nothing = proof.period_totals(start=middle, end=end)
            assert none == no == nothing == []
            assert whole == {name: first[name] + second[name] for name in whole}
            # The same by looking at each event and what it amounts to now.
            net = dict(rows(NET, start=start, end=end))
            assert whole["accepted_mt"] == sum(net.values())

    holds()


NET = """
    SELECT event.event_id, (event.mt + COALESCE(change.mt, 0))::bigint
      FROM usage_usageevent AS event
      LEFT JOIN (SELECT event_id, SUM(mt) AS mt FROM usage_amendment GROUP BY 1) AS change
        ON change.event_id = event.id
     WHERE (event.occurred_at AT TIME ZONE 'Asia/Shanghai')::date >= %(start)s
       AND (event.occurred_at AT TIME ZONE 'Asia/Shanghai')::date < %(end)s
"""


def test_a_void_after_the_debit_restores_every_balance(world: World) -> None:
    prepare(world)

    @bounded(12)
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        grants = data.draw(st.lists(any_buckets(), max_size=6))
        drafts = data.draw(st.lists(any_events(days=20), min_size=1, max_size=8))
        with world.example():
            for number, draft in enumerate(grants):
                world.grant(draft, f"b{number}", now=BORN)
            before = balances()
            world.ingest([d.body(world, f"e{i}", now=BORN) for i, d in enumerate(drafts)], now=BORN)
            ids = list(UsageEvent.objects.values_list("id", flat=True))
            for number in data.draw(st.permutations(ids)):
                corrections.void(event_id=number, key=f"v{number}", now=BORN + STEP, **BY)
            assert balances() == before
            assert all(row == (0, 0, 0, 0) for row in totals_by_person().values())
            assert proof.verify() == []

    holds()
