"""How locked subscribers stand: their profiles, their stays in pools, all that may pay for them.

Kept in memory while they are locked (locking.py), and changed there as they are charged.
"""

from collections.abc import Container
from datetime import date, datetime

import msgspec

from .database import copied_time
from .models.pools import UNCAPPED
from .periods import Days
from .waterfall import OpenBucket


class Profile(msgspec.Struct, gc=False):
    """A charging profile as charging holds it, locked."""

    subscriber_id: int
    account_id: int
    state: str
    beyond: str
    payg_fen_per_million: int
    payg_cap_mt: int
    reserved_payg_mt: int
    blocked: str
    pooled: bool
    pool_first: bool
    final_action: str
    free_model: str
    noticed_cycle: date | None
    noticed_percent: int
    remembered_by: int
    limited_since: date | None


class Taken(msgspec.Struct):
    """What a member took from a pool, in mt by billing day and by cycle, and what its sessions hold
    there, which is kept for them."""

    by_day: dict[date, int] = {}
    by_cycle: dict[date, int] = {}
    held_mt: int = 0

    def add(self, day: date, mt: int) -> None:
        """Count what was taken for usage of this day."""
        cycle = day.replace(day=1)
        self.by_day[day] = self.by_day.get(day, 0) + mt
        self.by_cycle[cycle] = self.by_cycle.get(cycle, 0) + mt


class Membership(msgspec.Struct):
    """When a subscriber may draw on a pool, how much, and what it took so far."""

    pool_id: int
    joined_at: datetime
    left_at: datetime | None
    cycle_cap_mt: int
    day_cap_mt: int
    taken: Taken | None = None  # not known: no stay of this member has a cap

    def covers(self, at: datetime) -> bool:
        """Whether the subscriber was a member then."""
        return self.joined_at <= at and (self.left_at is None or at < self.left_at)

    @property
    def is_capped(self) -> bool:
        """Whether it matters what was taken."""
        return self.cycle_cap_mt < UNCAPPED or self.day_cap_mt < UNCAPPED

    def allowance_mt(self, day: date) -> int:
        """What the caps still let it take for usage of this day, beside what its sessions hold."""
        held_mt = 0 if self.taken is None else self.taken.held_mt
        return max(0, self.left_mt(day) - held_mt)

    def left_mt(self, day: date) -> int:
        """What it has not taken yet of its caps for usage of this day, held by sessions or not."""
        if self.taken is None:
            assert not self.is_capped, "a capped member without what it took"
            return UNCAPPED
        month_mt = self.taken.by_cycle.get(day.replace(day=1), 0)
        day_mt = self.taken.by_day.get(day, 0)
        return max(0, min(self.cycle_cap_mt - month_mt, self.day_cap_mt - day_mt))


class Standing(msgspec.Struct):
    """Locked subscribers with all that may pay for them; lists of buckets are in burn order.
    Who charges `kept` ones remembers what becomes of their own buckets."""

    profiles: dict[int, Profile]
    own: dict[int, list[OpenBucket]]
    memberships: dict[int, list[Membership]] = {}
    of_pools: dict[int, list[OpenBucket]] = {}
    kept: Container[int] = ()
    days: Days = msgspec.field(default_factory=Days)

    def membership(self, subscriber_id: int, at: datetime) -> Membership | None:
        """The membership in force at an instant."""
        for membership in self.memberships.get(subscriber_id, ()):
            if membership.covers(at):
                return membership
        return None

    def buckets(self, subscriber_id: int, at: datetime) -> tuple[list[OpenBucket], int | None]:
        """What a subscriber may draw on for usage of this instant, and how much of it from the
        pool (None: it is in none)."""
        membership = self.membership(subscriber_id, at)
        if membership is None:
            return self.own.get(subscriber_id, []), None
        return self.with_pool(subscriber_id, membership), membership.allowance_mt(self.days.of(at))

    def with_pool(self, subscriber_id: int, membership: Membership) -> list[OpenBucket]:
        """A member's own buckets and its pool's, in the order in which they pay."""
        own = self.own.get(subscriber_id, [])
        shared = self.of_pools.get(membership.pool_id, [])
        return shared + own if self.profiles[subscriber_id].pool_first else own + shared

    def give_back(self, subscriber_id: int, pool_id: int, mt: int) -> None:
        """Let a member's cap have again what a session of its held of the pool."""
        for stay in self.memberships.get(subscriber_id, ()):
            if stay.pool_id == pool_id and stay.taken is not None:
                stay.taken.held_mt -= mt
                return  # one object for all stays

    def divided(self) -> "tuple[Standing, Standing]":
        """Those who are in no pool, and members of pools."""
        members = self.memberships
        alone = {owner: one for owner, one in self.profiles.items() if owner not in members}
        pooled = {owner: one for owner, one in self.profiles.items() if owner in members}
        return (
            Standing(alone, self.own, kept=self.kept),
            Standing(pooled, self.own, members, self.of_pools, self.kept),
        )

    def is_open(self, subscriber_id: int, at: datetime, instant: int) -> bool:
        """Whether a time (`instant` is the same as a number) lies in the validity of an open
        bucket, used up or not."""
        for bucket in self.own.get(subscriber_id, ()):
            if bucket.valid_from <= instant < bucket.valid_until:
                return True
        membership = self.membership(subscriber_id, at)
        return membership is not None and any(
            bucket.valid_from <= instant < bucket.valid_until
            for bucket in self.of_pools.get(membership.pool_id, ())
        )

    def has_left(self, subscriber_id: int, at: datetime) -> bool:
        """Whether anything is not used at this instant, held by a session or not."""
        instant = copied_time(at)
        for bucket in self.own.get(subscriber_id, ()):
            if bucket.available_mt + bucket.reserved_mt > 0 and bucket.is_valid(instant):
                return True
        membership = self.membership(subscriber_id, at)
        return (
            membership is not None
            and membership.left_mt(self.days.of(at)) > 0
            and any(
                bucket.available_mt + bucket.reserved_mt > 0 and bucket.is_valid(instant)
                for bucket in self.of_pools.get(membership.pool_id, ())
            )
        )
