"""A replay of what is stored into an empty database, and periods that are cut anywhere."""

from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.usage.conftest import at
from usage import corrections, ledger, movements, profiles, proof
from usage.models import Amendment, Bucket, Movement, UsageBatch, UsageEvent
from usage.normalising import Counts

from .test_life import allowed
from .test_order import BEYOND, ENTRIES
from .world import (
    BucketDraft,
    EventDraft,
    World,
    any_buckets,
    any_events,
    balances,
    bounded,
    rows,
    totals_by_person,
)

BORN = at("2026-11-20 12:00")
BY = {"actor": "clerk", "reason": "property"}
STEP = timedelta(hours=9)
STEPS = st.one_of(
    st.lists(any_events(days=30), max_size=5), any_buckets(), st.integers(0, 20),
    st.sampled_from(["close", "repeat", "void", "adjust"]),
)  # fmt: skip


def live(world: World, steps: list[Any]) -> None:
    """Anything at all, each step at an instant of its own."""
    now, sent = BORN, []
    for number, step in enumerate(steps):
        now += STEP
        if isinstance(step, BucketDraft):
            world.grant(step, f"b{number}", now=now)
        elif isinstance(step, list):
            new = [draft.body(world, f"{number}-{i}", now=now) for i, draft in enumerate(step)]
            sent += new
            world.ingest(new, now=now)
        elif step == "repeat":
            world.ingest(sent[-4:], now=now)
        elif step == "close":
            ledger.close_due_buckets(now=now)
        elif step == "adjust" and Bucket.objects.exists():
            adjust(Bucket.objects.latest("id").pk, f"a{number}", now)
        elif UsageEvent.objects.exists():
            event = UsageEvent.objects.order_by("-id")[0].pk
            correct(event, step if isinstance(step, int) else None, f"c{number}", now)


def adjust(bucket: int, key: str, now: datetime) -> None:
    """Give a bucket some more, if it still may be given to."""
    allowed(lambda: movements.adjust(bucket_id=bucket, amount_mt=7000, key=key, now=now, **BY))


def correct(event: int, tokens: int | None, key: str, now: datetime) -> None:
    """Void an event (None), or let it count so many tokens."""
    if tokens is None:
        allowed(lambda: corrections.void(event_id=event, key=key, now=now, **BY))
        return
    counts = Counts(tokens, 0, 0, 0)
    allowed(lambda: corrections.amend(event_id=event, counts=counts, key=key, now=now, **BY))


def exported(world: World) -> list[tuple[datetime, str, Any]]:
    """All facts of the database in the order of their instants: no balance is among them."""
    people = {person.pk: place for place, person in enumerate(world.people)}
    names = {model.pk: code for code, model in world.models.items()}
    facts: list[tuple[datetime, str, Any]] = []
    for bucket in Bucket.objects.exclude(key__startswith="rollover:"):
        owner = 3 if bucket.subscriber_id is None else people[bucket.subscriber_id]
        draft = BucketDraft(
            owner, bucket.granted_mt, bucket.kind, (bucket.valid_from, bucket.valid_until),
            (bucket.minute_from, bucket.minute_until),
            names[bucket.model_ids[0]] if bucket.model_ids else "", bucket.rollover_percent,
        )  # fmt: skip
        facts.append((bucket.created_at, "grant", (draft, bucket.key)))
    for batch in UsageBatch.objects.exclude(kind="correction"):
        stored = UsageEvent.objects.filter(batch_id=batch.pk).order_by("id")
        bodies = [
            EventDraft(
                people[event.subscriber_id], event.input_tokens,
                batch.received_at - event.occurred_at, names[event.model_id],
            ).body(world, event.event_id, now=batch.received_at)
            for event in stored
        ]  # fmt: skip
        facts.append((batch.received_at, "batch", bodies))
    for change in Amendment.objects.order_by("id"):
        event = UsageEvent.objects.get(pk=change.event_id)
        former = Amendment.objects.filter(event_id=event.pk, id__lte=change.pk)
        total = event.input_tokens + sum(former.values_list("input_tokens", flat=True))
        tokens = None if change.kind == "void" else total
        facts.append((change.recorded_at, "correct", (event.event_id, tokens, change.key)))
    for movement in Movement.objects.select_related("bucket"):
        if not movement.bucket.key.startswith("rollover:"):
            facts.append((movement.at, "adjust", (movement.bucket.key, movement)))
    closed = {at for at in Bucket.objects.values_list("closed_at", flat=True) if at}
    facts += [(at, "close", None) for at in closed]
    return sorted(facts, key=lambda fact: fact[0])


def replayed(world: World, facts: list[tuple[datetime, str, Any]]) -> None:
    """Let the facts happen again at their instants."""
    for now, kind, what in facts:
        if kind == "grant":
            world.grant(what[0], what[1], now=now)
        elif kind == "batch":
            world.ingest(what, now=now)
        elif kind == "close":
            ledger.close_due_buckets(now=now)
        elif kind == "adjust":
            bucket = Bucket.objects.get(key=what[0]).pk
            movements.adjust(
                bucket_id=bucket, amount_mt=what[1].amount_mt, key=what[1].key, now=now, **BY
            )
        else:
            correct(UsageEvent.objects.get(event_id=what[0]).pk, what[1], what[2], now)


def state() -> dict[str, Any]:
    """Everything that follows from the facts."""
    assert proof.verify() == []
    return {
        "balances": balances(),
        "people": totals_by_person(),
        "entries": rows(ENTRIES),
        "beyond": rows(BEYOND),
        "blocked": rows("SELECT subscriber_id, blocked FROM usage_chargingprofile ORDER BY 1"),
    }


def prepare(world: World) -> None:
    world.join_pool(0, now=BORN - timedelta(days=60), day_cap_mt=90_000)
    world.join_pool(1, now=BORN - timedelta(days=60))
    profiles.set_terms(
        subscriber_id=world.people[2].pk, beyond="payg", payg_fen_per_million=400,
        payg_cap_mt=150_000, now=BORN,
    )  # fmt: skip


def test_a_replay_of_all_events_reproduces_every_balance(world: World) -> None:
    prepare(world)

    @bounded(15)
    @given(steps=st.lists(STEPS, min_size=6, max_size=16))
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
