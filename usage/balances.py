"""What a subscriber has left: now, by the stored amounts, or as of a past instant by the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .database import copied_time, fast_cursor
from .models import (
    BlockChange,
    Bucket,
    ChargingProfile,
    CycleOverage,
    InferenceModel,
)
from .periods import cycle_of
from .shares import PoolShare, as_open, pool_share
from .waterfall import in_burn_order

# What the ledger had moved into a subscriber's buckets by an instant, and granted into them.
AMOUNTS_AS_OF = """
    SELECT bucket.id, SUM(entry.amount_mt)::bigint,
           COALESCE(SUM(entry.amount_mt)
                    FILTER (WHERE entry.kind IN ('grant', 'adjustment')), 0)::bigint
      FROM usage_bucket AS bucket
      JOIN usage_ledgerentry AS entry ON entry.bucket_id = bucket.id
     WHERE bucket.subscriber_id = %(owner_id)s
       AND bucket.valid_from <= %(at)s AND bucket.valid_until > %(at)s
       AND entry.recorded_at <= %(at)s
     GROUP BY bucket.id
     ORDER BY bucket.id
"""

POOL_AMOUNTS_AS_OF = AMOUNTS_AS_OF.replace("bucket.subscriber_id", "bucket.pool_id")

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
class Balance:
    """What a subscriber has at `as_of`; amounts in millitokens, overage of the running cycle.

    The sums leave out buckets whose hours of the day it is not, and, but for `usable_mt` and
    `whole_mt`, what a pool shares.
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

    @property
    def usable_mt(self) -> int:
        """What can be used now, of one's own and of the pool."""
        return self.available_mt + (self.pool.available_mt if self.pool else 0)

    @property
    def whole_mt(self) -> int:
        """The most that could have been used of what is valid now, own and the pool's share."""
        return self.granted_mt + (self.pool.whole_mt if self.pool else 0)


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
        pool=_share(profile, now),
    )


def _share(profile: ChargingProfile | None, now: datetime) -> PoolShare | None:
    if profile is None or not profile.pooled:
        return None
    return pool_share(subscriber_id=profile.pk, goes_first=profile.pool_first, now=now)


def balance_as_of(*, subscriber_id: int, at: datetime) -> Balance:
    """What the ledger had recorded by a past instant, in the buckets valid then.

    What sessions held then is not kept, so it counts as left; `beyond` is today's. Of a pool
    nothing is told: what a member's caps let it take then follows from no stored amount.
    """
    row = {"subscriber_id": subscriber_id, "at": at, "cycle": cycle_of(at)}
    with fast_cursor() as cursor:
        overage = cursor.execute(OVERAGE_AS_OF, row).fetchone()
    assert overage is not None  # an aggregate always has one row
    buckets = _buckets_as_of(AMOUNTS_AS_OF, subscriber_id, at)
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


def pool_buckets_as_of(*, pool_id: int, at: datetime) -> list[Bucket]:
    """A pool's buckets valid at a past instant, with the amounts that the ledger had recorded by
    then; what sessions held then is not kept, so it counts as left. For reading only."""
    return sorted(_buckets_as_of(POOL_AMOUNTS_AS_OF, pool_id, at), key=lambda bucket: bucket.pk)


def _buckets_as_of(statement: str, owner_id: int, at: datetime) -> list[Bucket]:
    with fast_cursor() as cursor:
        rows = cursor.execute(statement, {"owner_id": owner_id, "at": at}).fetchall()
    amounts = {bucket_id: (remaining, granted) for bucket_id, remaining, granted in rows}
    buckets = list(Bucket.objects.filter(id__in=amounts))
    for bucket in buckets:
        # Shown, never saved: the amounts are those of then.
        bucket.remaining_mt, bucket.granted_mt = amounts[bucket.pk]
        bucket.adjusted_mt = bucket.reserved_mt = 0
    return buckets


def _views(buckets: Sequence[Bucket], at: datetime) -> list[BucketView]:
    codes = _model_codes(buckets)
    by_id = {bucket.pk: bucket for bucket in buckets}
    instant = copied_time(at)
    return [
        _view(by_id[each.id], codes, usable_now=each.is_valid(instant))
        for each in in_burn_order(map(as_open, buckets))
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
