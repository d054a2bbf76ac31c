"""What a pool lets a member take: its free tokens, within the member's caps. Reads only."""

from dataclasses import dataclass
from datetime import date, datetime

from .database import copied_time
from .models import Bucket, PoolMember, PoolUsage, QuotaSession
from .models.pools import UNCAPPED
from .periods import cycle_of, day_of, next_cycle
from .standing import Membership, Taken
from .waterfall import WHOLE_DAY, OpenBucket


@dataclass(frozen=True)
class PoolShare:
    """A pool as one member sees it; amounts in mt, caps of UNCAPPED cap nothing.

    `available_mt` is what the member can take now: the least of what the pool has free and of what
    both caps still let it take, beside what its own sessions hold. `free_mt` and `granted_mt` are
    the pool's, whoever uses it.
    """

    pool_id: int
    name: str
    kind: str
    available_mt: int
    reserved_mt: int
    used_this_cycle_mt: int
    used_today_mt: int
    cycle_cap_mt: int
    day_cap_mt: int
    free_mt: int
    granted_mt: int
    goes_first: bool  # before the member's own tokens

    @property
    def cycle_capped(self) -> bool:
        """Whether a month's cap binds the member."""
        return self.cycle_cap_mt < UNCAPPED

    @property
    def day_capped(self) -> bool:
        """Whether a day's cap binds the member."""
        return self.day_cap_mt < UNCAPPED

    @property
    def whole_mt(self) -> int:
        """The most the member could have taken of what is valid now."""
        return min(self.granted_mt, self.cycle_cap_mt)

    @property
    def used_up_today(self) -> bool:
        """Whether the day's cap alone stands in the way, so that tomorrow opens."""
        below_cycle = self.used_this_cycle_mt + self.reserved_mt < self.cycle_cap_mt
        met = self.used_today_mt + self.reserved_mt >= self.day_cap_mt
        return self.free_mt > 0 and below_cycle and met


def pool_share(*, subscriber_id: int, goes_first: bool, now: datetime) -> PoolShare | None:
    """The share of the pool that the subscriber is a member of now; None when it is in none."""
    member = _membership(subscriber_id, now)
    if member is None:
        return None
    cycle, today = cycle_of(now), day_of(now)
    used = _used(subscriber_id, member.pool_id, cycle)
    used_mt = sum(used.values())
    buckets = Bucket.objects.filter(pool_id=member.pool_id, closed_at__isnull=True)
    at = copied_time(now)
    valid = [one for one in map(as_open, buckets) if one.is_valid(at)]
    held_mt = _held_mt(subscriber_id, {bucket.pk for bucket in buckets})
    caps = member.cycle_cap_mt, member.day_cap_mt
    taken = Taken(used, {cycle: used_mt}, held_mt)
    stay = Membership(member.pool_id, member.joined_at, member.left_at, *caps, taken)
    free_mt = sum(one.available_mt for one in valid)
    return PoolShare(
        pool_id=member.pool_id,
        name=member.pool.name,
        kind=member.pool.kind,
        available_mt=min(free_mt, stay.allowance_mt(today)),
        reserved_mt=held_mt,
        used_this_cycle_mt=used_mt,
        used_today_mt=used.get(today, 0),
        cycle_cap_mt=member.cycle_cap_mt,
        day_cap_mt=member.day_cap_mt,
        free_mt=free_mt,
        granted_mt=sum(one.size_mt for one in valid),
        goes_first=goes_first,
    )


def as_open(bucket: Bucket) -> OpenBucket:
    """A stored bucket as the waterfall sees it."""
    minutes = bucket.minute_from, bucket.minute_until
    return OpenBucket(
        owner_id=bucket.subscriber_id or bucket.pool_id or 0,
        priority=bucket.priority,
        valid_until=copied_time(bucket.valid_until),
        for_all_models=not bucket.model_ids,
        created_at=copied_time(bucket.created_at),
        id=bucket.pk,
        valid_from=copied_time(bucket.valid_from),
        available_mt=bucket.remaining_mt - bucket.reserved_mt,
        size_mt=bucket.granted_mt + bucket.adjusted_mt,
        reserved_mt=bucket.reserved_mt,
        model_ids=bucket.model_ids,
        hours=None if minutes[1] - minutes[0] == WHOLE_DAY else minutes,
        pool_id=bucket.pool_id,
    )


def _membership(subscriber_id: int, now: datetime) -> PoolMember | None:
    members = PoolMember.objects.select_related("pool").filter(subscriber_id=subscriber_id)
    present = members.filter(left_at__isnull=True) | members.filter(left_at__gt=now)
    return present.filter(joined_at__lte=now).first()


def _used(subscriber_id: int, pool_id: int, cycle: date) -> dict[date, int]:
    rows = PoolUsage.objects.filter(
        subscriber_id=subscriber_id, pool_id=pool_id, day__gte=cycle, day__lt=next_cycle(cycle)
    )
    return dict(rows.values_list("day", "mt"))


def _held_mt(subscriber_id: int, bucket_ids: set[int]) -> int:
    """What the member's own sessions hold of the pool, which its caps count as taken."""
    sessions = QuotaSession.objects.filter(subscriber_id=subscriber_id, state="open")
    holds = sessions.values_list("hold_bucket_ids", "hold_mts")
    return sum(
        mt
        for ids, mts in holds
        for bucket_id, mt in zip(ids, mts, strict=True)
        if bucket_id in bucket_ids
    )
