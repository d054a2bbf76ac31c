"""A random life: every verb that moves tokens, in any order; after each step all adds up.

`Life` remembers only what it was told (which events were accepted, what they amount to now), and
what each bucket held at each instant. A further verb is a further rule.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from config.errors import DomainError
from tests.usage.conftest import at
from tests.usage.test_quota_concurrency import ask
from usage import corrections, ledger, movements, pools, profiles, proof, quota, supervising
from usage.models import Bucket, QuotaSession, UsageEvent
from usage.models.pools import UNCAPPED
from usage.normalising import Counts

from .world import (
    BUCKETS,
    EventDraft,
    World,
    any_buckets,
    any_events,
    balances,
    bounded,
    rows,
    totals_by_person,
)

PERSON = st.integers(0, 2)
TOKENS = st.integers(1, 200)
BY = {"actor": "clerk", "reason": "property"}


class Life(RuleBasedStateMachine):
    """Three people, a pool and a node, from late November into December."""

    world: ClassVar[World]
    sent = Bundle("sent")  # (id, body) of events that were reported

    def __init__(self) -> None:
        super().__init__()
        self.before = transaction.savepoint()
        self.now = at("2026-11-28 12:00")
        self.number = 0
        self.known_mt: dict[str, int] = {}  # of accepted events, as they stand
        self.owner: dict[str, int] = {}
        self.sessions: dict[str, int] = {}  # living ones, and their last sequence
        self.seen: list[tuple[datetime, dict[str, tuple[int, int]]]] = []

    def teardown(self) -> None:
        try:
            self.balances_of_the_past_can_be_read()
            self.nothing_stays_held()
        finally:
            transaction.savepoint_rollback(self.before)

    def name(self, kind: str) -> str:
        self.number += 1
        return f"{kind}{self.number}"

    # --- what may happen ------------------------------------------------------------------------

    @rule(hours=st.sampled_from([1, 5, 24, 60]))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(draft=any_buckets())
    def grant(self, draft: Any) -> None:
        self.world.grant(draft, self.name("bucket"), now=self.now)

    @rule(person=PERSON, cap=st.sampled_from([UNCAPPED, 0, 30_000]))
    def join(self, person: int, cap: int) -> None:
        allowed(lambda: self.world.join_pool(person, now=self.now, cycle_cap_mt=cap))

    @rule(person=PERSON)
    def leave(self, person: int) -> None:
        owner = self.world.people[person].pk
        pool = self.world.pool.pk
        allowed(lambda: pools.leave(pool_id=pool, subscriber_id=owner, actor="c", now=self.now))

    @rule(person=PERSON, cap=st.sampled_from([0, 1, 50_000, 10**9]), pool_first=st.booleans())
    def change_terms(self, person: int, cap: int, pool_first: bool) -> None:
        profiles.set_terms(
            subscriber_id=self.world.people[person].pk,
            beyond="payg" if cap else "stop",
            payg_fen_per_million=400,
            payg_cap_mt=cap,
            pool_first=pool_first,
            now=self.now,
        )

    @rule(
        target=sent,
        drafts=st.lists(any_events(days=30), max_size=4),
        again=st.lists(sent, max_size=3),
    )
    def report(self, drafts: list[EventDraft], again: list[tuple[str, dict[str, Any]]]) -> Any:
        fresh = self.fresh(drafts)
        result = self.world.ingest([*(body for _id, body in [*fresh, *again])], now=self.now)
        assert (result.tally.accepted, result.tally.duplicate) == (len(fresh), len(again))
        return multiple(*fresh)

    @rule()
    def close_what_is_due(self) -> None:
        while ledger.close_due_buckets(now=self.now):
            pass

    @precondition(lambda self: Bucket.objects.exists())
    @rule(choice=st.integers(0, 20), mt=st.integers(-50_000, 50_000))
    def adjust(self, choice: int, mt: int) -> None:
        bucket, key = self.bucket(choice), self.name("adjust")
        allowed(
            lambda: movements.adjust(bucket_id=bucket, amount_mt=mt, key=key, now=self.now, **BY)
        )

    @precondition(lambda self: Bucket.objects.exists())
    @rule(choice=st.integers(0, 20))
    def void_a_bucket(self, choice: int) -> None:
        bucket, key = self.bucket(choice), self.name("void")
        allowed(lambda: movements.void_bucket(bucket_id=bucket, key=key, now=self.now, **BY))

    @precondition(lambda self: Bucket.objects.exists())
    @rule(choice=st.integers(0, 20), person=PERSON, mt=st.integers(1, 50_000), new=st.booleans())
    def transfer(self, choice: int, person: int, mt: int, new: bool) -> None:
        bucket, key, to = self.bucket(choice), self.name("move"), self.world.people[person].pk
        allowed(
            lambda: movements.transfer(
                bucket_id=bucket, to_subscriber_id=to, amount_mt=mt, key=key, now=self.now,
                into_new_bucket=new, **BY,
            )
        )  # fmt: skip

    @precondition(lambda self: self.known_mt)
    @rule(choice=st.integers(0, 20), tokens=st.one_of(st.none(), TOKENS))
    def correct(self, choice: int, tokens: int | None) -> None:
        """None voids the event, a number lets it count so many."""
        event = sorted(self.known_mt)[choice % len(self.known_mt)]
        number = UsageEvent.objects.get(event_id=event).pk
        key = self.name("mend")
        if tokens is None:
            done = allowed(lambda: corrections.void(event_id=number, key=key, now=self.now, **BY))
        else:
            counts = Counts(tokens, 0, 0, 0)
            done = allowed(
                lambda: corrections.amend(
                    event_id=number, counts=counts, key=key, now=self.now, **BY
                )
            )
        if done:
            self.known_mt[event] = (tokens or 0) * 1000

    @rule(person=PERSON, requested=st.one_of(st.none(), TOKENS), one_shot=st.booleans(),
          drafts=st.lists(any_events(days=1), max_size=2))  # fmt: skip
    def open_session(
        self, person: int, requested: int | None, one_shot: bool, drafts: list[EventDraft]
    ) -> None:
        question = ask(0, requested, *(body for _id, body in self.fresh(drafts)))
        name, subject = self.name("session"), self.world.people[person].msisdn
        answers = [
            quota.create(
                node=self.world.node, name=name, subject=subject, model="plain", ask=question,
                one_shot=one_shot, now=self.now,
            )
            for _repeat in range(2)
        ]  # fmt: skip
        assert answers[0] == answers[1]
        if not one_shot:
            self.sessions[answers[0].body["ref"]] = 0

    @precondition(lambda self: self.sessions)
    @rule(choice=st.integers(0, 9), requested=st.one_of(st.none(), TOKENS),
          drafts=st.lists(any_events(days=1), max_size=2), end=st.booleans())  # fmt: skip
    def go_on_with_session(
        self, choice: int, requested: int | None, drafts: list[EventDraft], end: bool
    ) -> None:
        ref = sorted(self.sessions)[choice % len(self.sessions)]
        self.sessions[ref] += 1
        bodies = [body for _id, body in self.fresh(drafts)]
        question = ask(self.sessions[ref], requested, *bodies)
        verb = quota.release if end else quota.update
        answers = [
            verb(node=self.world.node, ref=ref, ask=question, now=self.now) for _repeat in range(2)
        ]
        assert answers[0] == answers[1]
        if end:
            del self.sessions[ref]

    @rule()
    def supervise(self) -> None:
        supervising.expire_abandoned(now=self.now)

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def everything_agrees(self) -> None:
        assert proof.verify() == []
        self.seen.append((self.now, balances()))

    @invariant()
    def every_accepted_token_went_somewhere(self) -> None:
        expected: dict[int, int] = {}
        for event, mt in self.known_mt.items():
            expected[self.owner[event]] = expected.get(self.owner[event], 0) + mt
        found = totals_by_person()
        assert {owner: row[0] for owner, row in found.items() if row[0]} == {
            owner: mt for owner, mt in expected.items() if mt
        }
        for accepted, debited, priced, uncovered in found.values():
            assert accepted == debited + priced + uncovered
            assert min(debited, priced, uncovered) >= 0
        _totals, differences = proof.period_totals(start=date(2026, 9, 1), end=date(2027, 9, 1))
        assert differences == []

    def balances_of_the_past_can_be_read(self) -> None:
        """Of each instant the last state that was seen; the ledger alone tells it."""
        for now, expected in dict(self.seen).items():
            found = rows(BALANCES_AT, now=now)
            assert dict(found) == {
                key: remaining for key, (_granted, remaining) in expected.items() if remaining
            }

    def nothing_stays_held(self) -> None:
        later = self.now + timedelta(hours=1)
        supervising.expire_abandoned(now=later)
        assert not QuotaSession.objects.filter(state="open").exists()
        assert not Bucket.objects.exclude(reserved_mt=0).exists()
        assert proof.verify() == []

    # --- what the rules share ---------------------------------------------------------------------

    def fresh(self, drafts: Sequence[EventDraft]) -> list[tuple[str, dict[str, Any]]]:
        """Bodies of events that were never sent before and will all be accepted."""
        made = []
        for draft in drafts:
            id = self.name("event")
            self.known_mt[id] = draft.mt
            self.owner[id] = self.world.people[draft.person].pk
            made.append((id, draft.body(self.world, id, now=self.now)))
        return made

    def bucket(self, choice: int) -> int:
        """Any bucket that ever was."""
        ids = list(Bucket.objects.order_by("id").values_list("id", flat=True))
        return ids[choice % len(ids)]


BALANCES_AT = f"""
    SELECT bucket.name, SUM(entry.amount_mt)::bigint
      FROM usage_ledgerentry AS entry
      JOIN {BUCKETS} ON bucket.id = entry.bucket_id
     WHERE entry.recorded_at <= %(now)s
     GROUP BY bucket.name HAVING SUM(entry.amount_mt) <> 0
"""  # noqa: S608 (of our own words)


def allowed(verb: Any) -> bool:
    """Whether it was done; a refusal must have changed nothing, which the invariants tell."""
    try:
        verb()
    except DomainError:
        return False
    return True


def test_after_every_step_of_a_random_life_all_adds_up(world: World) -> None:
    Life.world = world
    run_state_machine_as_test(Life, settings=bounded(12, steps=30))
