"""A life told by its steps; all facts of it as they are stored; and how they happen again.

Facts are grants, memberships, movements, closes, events, corrections, and what sessions were
granted: no balance is among them. What no step changes is left out: weights, terms and numbers.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.usage.conftest import at
from tests.usage.test_quota_concurrency import ask
from usage import corrections, ledger, movements, pools, profiles, quota
from usage.models import (
    UNCAPPED,
    Amendment,
    Bucket,
    Movement,
    PoolMember,
    QuotaAnswer,
    QuotaSession,
    UsageBatch,
    UsageEvent,
)
from usage.normalising import Counts

from .test_life import allowed
from .world import (
    BUCKETS,
    PERIODS,
    BucketDraft,
    EventDraft,
    World,
    any_buckets,
    any_events,
    rows,
)

BORN = at("2026-11-20 12:00")
BY = {"actor": "clerk", "reason": "property"}
STEP = timedelta(hours=9)
MOVED_MT = 7000
WORDS = st.one_of(
    st.sampled_from(["close", "void", "adjust", "void bucket", "transfer"]),
    st.sampled_from(["come", "go", "hold", "use", "release"]),
)
STEPS = st.one_of(
    st.lists(any_events(days=30), max_size=5), any_buckets(), st.integers(0, 20), st.just("repeat"),
    WORDS,
)  # fmt: skip
# So that most steps find something to move.
GRANTED = [BucketDraft(0, 60_000), BucketDraft(3, 120_000), BucketDraft(1, 30_000, kind="pack")]
# One life in which every step finds something to move.
FULL: list[Any] = [
    "hold", [EventDraft(person, 10, STEP) for person in (0, 1, 2)], "transfer", "use", "go",
    [EventDraft(person, 25, 3 * STEP) for person in (0, 1, 0)], "adjust", "come", 17, "release",
    BucketDraft(2, 20_000, period=PERIODS[1], rollover_percent=50), "void", "close",
    [EventDraft(person, 40, timedelta(days=11)) for person in (0, 1, 2)], "void bucket", "repeat",
    "go", "hold", "use", 40, "hold",
]  # fmt: skip
Body = dict[str, Any]
Fact = tuple[datetime, str, tuple[Any, ...]]


def prepare(world: World) -> None:
    """Two people are in the pool, one of them under a cap; the third one's plan sells more."""
    world.join_pool(0, now=BORN - timedelta(days=60), day_cap_mt=90_000)
    world.join_pool(1, now=BORN - timedelta(days=60))
    profiles.set_terms(
        subscriber_id=world.people[2].pk, beyond="payg", payg_fen_per_million=400,
        payg_cap_mt=150_000, now=BORN,
    )  # fmt: skip


def live(world: World, steps: Sequence[Any]) -> None:
    """Some grants, and then anything at all, each step at an instant of its own."""
    sent: list[Body] = []
    for number, step in enumerate([*GRANTED, *steps]):
        now = BORN + (number + 1) * STEP
        if isinstance(step, BucketDraft):
            world.grant(step, f"b{number}", now=now)
        elif isinstance(step, list):
            new = [draft.body(world, f"{number}-{i}", now=now) for i, draft in enumerate(step)]
            sent += new
            world.ingest(new, now=now)
        elif step == "repeat":
            world.ingest(sent[-4:], now=now)
        else:
            act(world, step, number, now)


def act(world: World, step: str | int, number: int, now: datetime) -> None:
    """A step that is told by a word; a number is of the tokens that the newest event counts."""
    match step:
        case "close":
            ledger.close_due_buckets(now=now)
        case "come" | "go":
            come_or_go(world, step, number, now)
        case "hold" | "use" | "release":
            hold_or_use(world, step, number, now)
        case "adjust" | "void bucket" | "transfer":
            ids = list(Bucket.objects.order_by("id").values_list("id", flat=True))
            to, mt, key = world.people[number % 3].pk, MOVED_MT, f"m{number}"
            move(step, ids[number * 7 % len(ids)], mt=mt, to=to, key=key, now=now)
        case _:
            if event := UsageEvent.objects.last():
                correct(event.pk, step if isinstance(step, int) else None, f"c{number}", now)


def come_or_go(world: World, step: str, number: int, now: datetime) -> None:
    """Somebody joins the pool, mostly under a cap, or leaves it."""
    if step == "come":
        cap_mt = [UNCAPPED, 40_000, 0][number // 3 % 3]
        allowed(lambda: world.join_pool(number % 3, now=now, cycle_cap_mt=cap_mt))
    else:
        leave(world, number % 3, now)


def leave(world: World, person: int, now: datetime) -> None:
    """Somebody is no member any more."""
    who: dict[str, Any] = {"pool_id": world.pool.pk, "subscriber_id": world.people[person].pk}
    allowed(lambda: pools.leave(actor="clerk", now=now, **who))


def hold_or_use(world: World, step: str, number: int, now: datetime) -> None:
    """A session begins to hold tokens; or the newest one uses some, and holds others or ends."""
    session = QuotaSession.objects.exclude(state="released").last()
    if step == "hold":
        begin(world, f"s{number}", number % 3, 7 + 5 * number, now)
    elif session is not None:
        [person] = [n for n, one in enumerate(world.people) if one.pk == session.subscriber_id]
        draft = EventDraft(person, 3 * number, timedelta(hours=number % 11))
        events = [draft.body(world, f"q{number}", now=now)]
        go_on(world, session, number, 11, events, ends=step == "release", now=now)


def begin(world: World, name: str, person: int, tokens: int, now: datetime) -> None:
    """A session asks for its first tokens."""
    quota.create(
        node=world.node, name=name, subject=world.people[person].msisdn, model="plain",
        ask=ask(0, tokens), now=now,
    )  # fmt: skip


def go_on(
    world: World, session: QuotaSession, sequence: int, tokens: int, events: list[Body], *,
    ends: bool, now: datetime,
) -> None:  # fmt: skip
    """A session reports events, and asks for more unless it ends."""
    verb = quota.release if ends else quota.update
    verb(node=world.node, ref=session.ref, ask=ask(sequence, tokens, *events), now=now)


def move(step: str, bucket: int, *, mt: int, to: int | None, key: str, now: datetime) -> None:
    """Give a bucket some more, let somebody else have of it, or void it."""
    about: dict[str, Any] = {"bucket_id": bucket, "key": key, "now": now, **BY}
    if step == "void bucket":
        allowed(lambda: movements.void_bucket(**about))
    elif step == "adjust":
        allowed(lambda: movements.adjust(amount_mt=mt, **about))
    else:
        assert to is not None
        allowed(lambda: movements.transfer(to_subscriber_id=to, amount_mt=mt, **about))


def correct(event: int, tokens: int | None, key: str, now: datetime) -> None:
    """Void an event (None), or let it count so many tokens."""
    if tokens is None:
        allowed(lambda: corrections.void(event_id=event, key=key, now=now, **BY))
        return
    counts = Counts(tokens, 0, 0, 0)
    allowed(lambda: corrections.amend(event_id=event, counts=counts, key=key, now=now, **BY))


# --- what is stored


def exported(world: World) -> list[Fact]:
    """All facts of the database in the order of their instants."""
    people = {person.pk: place for place, person in enumerate(world.people)}
    closed = {at for at in Bucket.objects.values_list("closed_at", flat=True) if at}
    facts = [
        *_grants(world, people), *_memberships(people), *_movements(), *_batches(world, people),
        *_sessions(world, people), *_corrections(), *((at, "close", ()) for at in closed),
    ]  # fmt: skip
    return sorted(facts, key=lambda fact: fact[0])


def _grants(world: World, people: dict[int, int]) -> Iterator[Fact]:
    names = {model.pk: code for code, model in world.models.items()}
    for bucket in Bucket.objects.all():
        if bucket.key.startswith(("rollover:", "transfer:")):
            continue  # it follows from another fact
        owner = 3 if bucket.subscriber_id is None else people[bucket.subscriber_id]
        draft = BucketDraft(
            owner, bucket.granted_mt, bucket.kind, (bucket.valid_from, bucket.valid_until),
            (bucket.minute_from, bucket.minute_until),
            names[bucket.model_ids[0]] if bucket.model_ids else "", bucket.rollover_percent,
        )  # fmt: skip
        yield bucket.created_at, "grant", (draft, bucket.key)


def _memberships(people: dict[int, int]) -> Iterator[Fact]:
    for member in PoolMember.objects.all():
        person = people[member.subscriber_id]
        if member.joined_at > BORN:
            yield member.joined_at, "join", (person, member.cycle_cap_mt)
        if member.left_at is not None:
            yield member.left_at, "leave", (person,)


def _movements() -> Iterator[Fact]:
    steps = {"adjustment": "adjust", "void": "void bucket", "transfer": "transfer"}
    for one in Movement.objects.select_related("other_bucket"):
        to = one.other_bucket and one.other_bucket.subscriber_id
        yield one.at, "move", (steps[one.kind], _name(one.bucket_id), one.amount_mt, to, one.key)


def _batches(world: World, people: dict[int, int]) -> Iterator[Fact]:
    for batch in UsageBatch.objects.filter(kind="events"):
        yield batch.received_at, "batch", (_bodies(world, people, batch),)


def _bodies(world: World, people: dict[int, int], batch: UsageBatch) -> list[Body]:
    names = {model.pk: code for code, model in world.models.items()}
    return [
        EventDraft(
            people[event.subscriber_id], event.input_tokens,
            batch.received_at - event.occurred_at, names[event.model_id],
        ).body(world, event.event_id, now=batch.received_at)
        for event in UsageEvent.objects.filter(batch_id=batch.pk).order_by("id")
    ]  # fmt: skip


def _sessions(world: World, people: dict[int, int]) -> Iterator[Fact]:
    """What was asked for is not stored, but what was granted is: that is asked for again."""
    for answer in QuotaAnswer.objects.all():
        session = QuotaSession.objects.get(pk=answer.session_id)
        ends = (session.state, session.sequence) == ("released", answer.sequence)
        batches = UsageBatch.objects.filter(kind="quota", received_at=answer.at)
        events = [body for batch in batches for body in _bodies(world, people, batch)]
        asked = (answer.sequence, answer.body["granted"], events, ends)
        assert session.subscriber_id is not None
        yield answer.at, "ask", (session.session, people[session.subscriber_id], *asked)


def _corrections() -> Iterator[Fact]:
    for change in Amendment.objects.order_by("id"):
        event = UsageEvent.objects.get(pk=change.event_id)
        former = Amendment.objects.filter(event_id=event.pk, id__lte=change.pk)
        total = event.input_tokens + sum(former.values_list("input_tokens", flat=True))
        tokens = None if change.kind == "void" else total
        yield change.recorded_at, "correct", (event.event_id, tokens, change.key)


BUCKET_IDS = f"SELECT bucket.id, bucket.name FROM {BUCKETS}"  # noqa: S608 (of our own words)


def _name(bucket: int) -> str:
    """The name under which a bucket is known in every life."""
    return str(dict(rows(BUCKET_IDS))[bucket])


# --- once more


def replayed(world: World, facts: Sequence[Fact]) -> None:
    """Let the facts happen again at their instants."""
    for now, kind, what in facts:
        if kind in {"batch", "ask", "correct"}:
            _use_again(world, kind, what, now)
        else:
            _act_again(world, kind, what, now)


def _act_again(world: World, kind: str, what: tuple[Any, ...], now: datetime) -> None:
    match kind, what:
        case "grant", (draft, key):
            world.grant(draft, key, now=now)
        case "join", (person, cap_mt):
            world.join_pool(person, now=now, cycle_cap_mt=cap_mt)
        case "leave", (person,):
            leave(world, person, now)
        case "move", (step, name, mt, to, key):
            ids = {name: bucket for bucket, name in rows(BUCKET_IDS)}
            move(step, ids[name], mt=mt, to=to, key=key, now=now)
        case "close", ():
            ledger.close_due_buckets(now=now)
        case _:
            raise AssertionError(kind)


def _use_again(world: World, kind: str, what: tuple[Any, ...], now: datetime) -> None:
    match kind, what:
        case "batch", (events,):
            world.ingest(events, now=now)
        case "ask", (name, person, 0, tokens, _events, _ends):
            begin(world, name, person, tokens, now)
        case "ask", (name, _person, sequence, tokens, events, ends):
            session = QuotaSession.objects.get(session=name)
            go_on(world, session, sequence, tokens, events, ends=ends, now=now)
        case "correct", (event, tokens, key):
            correct(UsageEvent.objects.get(event_id=event).pk, tokens, key, now)
        case _:
            raise AssertionError(kind)
