"""What a subscriber has left: now, by the stored amounts, or as of a past instant by the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from .database import fast_cursor
from .locking import Membership
from .models import (
    BlockChange,
    Bucket,
    ChargingProfile,
    CycleOverage,
    InferenceModel,
    PoolMember,
    PoolUsage,
)
from .periods import cycle_of, day_of
from .waterfall import OpenBucket, in_burn_order

# What the ledger had moved into the subscriber's buckets by an instant, and granted into them.
AMOUNTS_AS_OF = """
    SELECT bucket.id, SUM(entry.amount_mt)::bigint,
           COALESCE(SUM(entry.amount_mt)
                    FILTER (WHERE entry.kind IN ('grant', 'adjustment')), 0)::bigint
      FROM usage_bucket AS bucket
      JOIN usage_ledgerentry AS entry ON entry.bucket_id = bucket.id
     WHERE bucket.subscriber_id = %(subscriber_id)s
       AND bucket.valid_from <= %(at)s AND bucket.valid_until > %(at)s
       AND entry.recorded_at <= %(at)s
     GROUP BY bucket.id
     ORDER BY bucket.id
"""

OVERAGE_AS_OF = """
    SELECT COALESCE(SUM(overage.mt) FILTER (WHERE overage.priced), 0)::bigint,
           COALESCE(SUM(overage.mt) FILTER (WHERE NOT overage.priced), 0)::bigint
      FROM usage_overage AS overage
     WHERE overage.subscriber_id = %(subscriber_id)s AND overage.cycle = %(cycle)s
       AND overage.recorded_at <= %(at)s
"""


@dataclass(frozen=True)
class BucketView:
    """One bucket as its owner sees it; amounts in millitokens, hours as minutes of the day."""

    id: int
    kind: str
    name: str
    name_en: str
    granted_mt: int
    remaining_mt: int
    reserved_mt: int
    valid_from: datetime
    valid_until: datetime
    model_codes: list[str]
    minute_from: int = 0
    minute_until: int = 1440
    usable_now: bool = True


@dataclass(frozen=True)
class PoolShare:
    """What the pool of a subscriber still lets it take: its free tokens, within the caps (mt)."""

    pool_id: int
    name: str
    available_mt: int
    used_this_cycle_mt: int
    cycle_cap_mt: int
    day_cap_mt: int


@dataclass(frozen=True)
class Balance:
    """What a subscriber has at `as_of`; amounts in millitokens, overage of the running cycle.

    The sums leave out buckets whose hours of the day it is not, and what a pool shares.
    """

    as_of: datetime
    buckets: list[BucketView]
    priced_overage_mt: int
    uncovered_mt: int
    blocked: str
    beyond: str = field(default="stop")
    pool: PoolShare | None = None

    @property
    def granted_mt(self) -> int:
        """All that was granted into the buckets valid now."""
        return sum(bucket.granted_mt for bucket in self.buckets if bucket.usable_now)

    @property
    def reserved_mt(self) -> int:
        """What open sessions hold."""
        return sum(bucket.reserved_mt for bucket in self.buckets if bucket.usable_now)

    @property
    def available_mt(self) -> int:
        """What can be used now: remaining, less what is held."""
        return sum(
            bucket.remaining_mt - bucket.reserved_mt for bucket in self.buckets if bucket.usable_now
        )


def balance(*, subscriber_id: int, now: datetime) -> Balance:
    """The buckets valid now in burn order, overage of this cycle and whether service is blocked."""
    buckets = list(
        Bucket.objects.filter(
            subscriber_id=subscriber_id,
            closed_at=None,
            valid_from__lte=now,
            valid_until__gt=now,
        )
    )
    total = CycleOverage.objects.filter(subscriber_id=subscriber_id, cycle=cycle_of(now)).first()
    profile = ChargingProfile.objects.filter(subscriber_id=subscriber_id).first()
    return Balance(
        as_of=now,
        buckets=_views(buckets, now),
        priced_overage_mt=total.priced_mt if total else 0,
        uncovered_mt=total.uncovered_mt if total else 0,
        blocked=profile.blocked if profile else "",
        beyond=profile.beyond if profile else "stop",
        pool=_pool_share(subscriber_id, now) if profile and profile.pooled else None,
    )


def balance_as_of(*, subscriber_id: int, at: datetime) -> Balance:
    """What the ledger had recorded by a past instant, in the buckets valid then.

    What sessions held then is not kept, so it counts as left; `beyond` is today's.
    """
    row = {"subscriber_id": subscriber_id, "at": at, "cycle": cycle_of(at)}
    with fast_cursor() as cursor:
        amounts = {
            bucket_id: (remaining, granted)
            for bucket_id, remaining, granted in cursor.execute(AMOUNTS_AS_OF, row)
        }
        overage = cursor.execute(OVERAGE_AS_OF, row).fetchone()
    assert overage is not None  # an aggregate always has one row
    buckets = list(Bucket.objects.filter(id__in=amounts))
    for bucket in buckets:
        # Shown, never saved: the amounts are those of then.
        bucket.remaining_mt, bucket.granted_mt = amounts[bucket.pk]
        bucket.adjusted_mt = bucket.reserved_mt = 0
    changes = BlockChange.objects.filter(subscriber_id=subscriber_id, at__lte=at)
    change = changes.order_by("-id").first()
    profile = ChargingProfile.objects.filter(subscriber_id=subscriber_id).first()
    return Balance(
        as_of=at,
        buckets=_views(buckets, at),
        priced_overage_mt=overage[0],
        uncovered_mt=overage[1],
        blocked=change.reason if change and change.blocked else "",
        beyond=profile.beyond if profile else "stop",
    )


def _open(bucket: Bucket) -> OpenBucket:
    return OpenBucket(
        owner_id=bucket.subscriber_id or bucket.pool_id or 0,
        priority=bucket.priority,
        valid_until=bucket.valid_until,
        for_all_models=not bucket.model_ids,
        created_at=bucket.created_at,
        id=bucket.pk,
        valid_from=bucket.valid_from,
        available_mt=bucket.remaining_mt - bucket.reserved_mt,
        size_mt=bucket.granted_mt + bucket.adjusted_mt,
        reserved_mt=bucket.reserved_mt,
        pool_id=bucket.pool_id,
        model_ids=bucket.model_ids,
        minute_from=bucket.minute_from,
        minute_until=bucket.minute_until,
    )


def _views(buckets: Sequence[Bucket], at: datetime) -> list[BucketView]:
    codes = _model_codes(buckets)
    by_id = {bucket.pk: bucket for bucket in buckets}
    return [
        _view(by_id[each.id], codes, usable_now=each.is_valid(at))
        for each in in_burn_order(map(_open, buckets))
    ]


def _view(one: Bucket, codes: dict[int, str], *, usable_now: bool) -> BucketView:
    return BucketView(
        id=one.pk,
        kind=one.kind,
        name=one.name,
        name_en=one.name_en,
        granted_mt=one.granted_mt + one.adjusted_mt,
        remaining_mt=one.remaining_mt,
        reserved_mt=one.reserved_mt,
        valid_from=one.valid_from,
        valid_until=one.valid_until,
        model_codes=[codes[model_id] for model_id in one.model_ids if model_id in codes],
        minute_from=one.minute_from,
        minute_until=one.minute_until,
        usable_now=usable_now,
    )


def _model_codes(buckets: Sequence[Bucket]) -> dict[int, str]:
    ids = {model_id for one in buckets for model_id in one.model_ids}
    if not ids:
        return {}
    return dict(InferenceModel.objects.filter(id__in=ids).values_list("id", "code"))


def _pool_share(subscriber_id: int, now: datetime) -> PoolShare | None:
    members = PoolMember.objects.select_related("pool").filter(subscriber_id=subscriber_id)
    present = members.filter(left_at__isnull=True) | members.filter(left_at__gt=now)
    member = present.filter(joined_at__lte=now).first()
    if member is None:
        return None
    cycle: date = cycle_of(now)
    rows = PoolUsage.objects.filter(
        subscriber_id=subscriber_id, pool_id=member.pool_id, day__gte=cycle
    )
    used = dict(rows.values_list("day", "mt"))
    caps = member.cycle_cap_mt, member.day_cap_mt
    stay = Membership(member.pool_id, member.joined_at, member.left_at, *caps, used)
    shared: list[Any] = [
        _open(bucket)
        for bucket in Bucket.objects.filter(pool_id=member.pool_id, closed_at__isnull=True)
    ]
    free = sum(each.available_mt for each in shared if each.is_valid(now))
    return PoolShare(
        pool_id=member.pool_id,
        name=member.pool.name,
        available_mt=min(free, stay.allowance_mt(day_of(now))),
        used_this_cycle_mt=sum(used.values()),
        cycle_cap_mt=member.cycle_cap_mt,
        day_cap_mt=member.day_cap_mt,
    )
