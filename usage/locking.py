"""Whom a charge concerns is locked first: charging profiles in subscriber order, then pools in
order; nothing is awaited for ever, since every connection has a lock_timeout. Who claims event keys
does so between the two: many are after a large pool, and all that is done before it is locked, they
do side by side.

Buckets are only moved by whoever holds their subscriber's profile (or their pool's row), so they
need no lock of their own.
"""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeAlias

from config.errors import DomainError

from .database import Cursor, array, instants_as_numbers
from .periods import cycle_of
from .standing import Membership, Profile, Standing, Taken
from .waterfall import OpenBucket

# In subscriber order, so that two batches never wait for each other crosswise.
LOCK_PROFILES = """
    SELECT profile.subscriber_id, profile.account_id, profile.state, profile.beyond,
           profile.payg_fen_per_million, profile.payg_cap_mt, profile.reserved_payg_mt,
           profile.blocked, profile.pooled, profile.pool_first, profile.final_action,
           profile.free_model, profile.noticed_cycle, profile.noticed_percent,
           profile.remembered_by, profile.limited_since
      FROM usage_chargingprofile AS profile
     WHERE profile.subscriber_id = ANY(%(ids)s::bigint[])
     ORDER BY profile.subscriber_id
       FOR NO KEY UPDATE
"""

# Memberships that usage of the accepted age may fall into.
MEMBERSHIPS = """
    SELECT member.subscriber_id, member.pool_id, member.joined_at, member.left_at,
           member.cycle_cap_mt, member.day_cap_mt
      FROM usage_poolmember AS member
     WHERE member.subscriber_id = ANY(%(ids)s::bigint[])
       AND (member.left_at IS NULL OR member.left_at > %(since)s)
     ORDER BY member.subscriber_id, member.joined_at
"""

LOCK_POOLS = """
    SELECT pool.id FROM usage_pool AS pool
     WHERE pool.id = ANY(%(ids)s::bigint[])
     ORDER BY pool.id
       FOR NO KEY UPDATE
"""

WITHOUT_WAITING = " SKIP LOCKED"

# What members with a cap took from their pools in the months in question.
POOL_USAGE = """
    SELECT used.subscriber_id, used.pool_id, used.day, used.mt
      FROM usage_poolusage AS used
     WHERE used.subscriber_id = ANY(%(ids)s::bigint[]) AND used.day >= %(since)s
     ORDER BY used.subscriber_id, used.day
"""

# What their sessions hold of the pools, within the caps.
POOL_HOLDS = """
    SELECT session.subscriber_id, bucket.pool_id, SUM(held.mt)::bigint
      FROM usage_quotasession AS session
     CROSS JOIN LATERAL unnest(session.hold_bucket_ids, session.hold_mts) AS held (bucket_id, mt)
      JOIN usage_bucket AS bucket ON bucket.id = held.bucket_id
     WHERE session.subscriber_id = ANY(%(ids)s::bigint[]) AND session.state = 'open'
       AND bucket.pool_id IS NOT NULL
     GROUP BY session.subscriber_id, bucket.pool_id
     ORDER BY session.subscriber_id, bucket.pool_id
"""

# What the subscribers of a batch may draw on. Read after the locks, by a statement of its own:
# its snapshot must hold what the former owner of the locks has written. In the order of the index
# over open buckets, since sorting took a third of the time.
OPEN_BUCKETS = """
    SELECT bucket.subscriber_id, bucket.priority, bucket.valid_until,
           cardinality(bucket.model_ids) = 0, bucket.created_at, bucket.id, bucket.valid_from,
           bucket.remaining_mt - bucket.reserved_mt, bucket.granted_mt + bucket.adjusted_mt,
           bucket.reserved_mt,
           CASE WHEN cardinality(bucket.model_ids) > 0 THEN bucket.model_ids END,
           CASE WHEN bucket.minute_until - bucket.minute_from <> 1440
                THEN ARRAY[bucket.minute_from, bucket.minute_until] END
      FROM usage_bucket AS bucket
     WHERE bucket.subscriber_id = ANY(%(ids)s::bigint[]) AND bucket.closed_at IS NULL
     ORDER BY bucket.subscriber_id
"""

OPEN_POOL_BUCKETS = OPEN_BUCKETS.replace("bucket.subscriber_id", "bucket.pool_id")

OLDEST_USAGE = timedelta(days=63)  # a day more than events may be old


class UnknownSubscriber(DomainError):
    """There is no such subscriber."""

    code = "unknown_subscriber"
    status = 404
    title = "Unknown subscriber"


def lock_profiles(cursor: Cursor, ids: Sequence[int]) -> dict[int, Profile]:
    """Lock the profiles of these subscribers, in order; every one of them must exist."""
    profiles = _lock_profiles(cursor, LOCK_PROFILES, ids)
    if missing := set(ids) - profiles.keys():
        raise UnknownSubscriber(f"No charging profile for subscribers {sorted(missing)[:5]}.")
    return profiles


def _lock_profiles(cursor: Cursor, statement: str, ids: Sequence[int]) -> dict[int, Profile]:
    rows = cursor.execute(statement, {"ids": array(sorted(ids))}, prepare=True).fetchall()
    return {row[0]: Profile(*row) for row in rows}


def lock_pools(cursor: Cursor, ids: Sequence[int]) -> None:
    """Lock pools, in order; after the profiles of those concerned, if any."""
    cursor.execute(LOCK_POOLS, {"ids": array(sorted(ids))})


Owners: TypeAlias = tuple[dict[int, Profile], dict[int, list[Membership]]]


def lock_owners(cursor: Cursor, ids: Sequence[int], *, now: datetime, waits: bool = True) -> Owners:
    """Lock subscribers, and tell in which pools they are; without `waits`, those are left out whom
    others have locked."""
    if waits:
        profiles = lock_profiles(cursor, ids)
    else:
        profiles = _lock_profiles(cursor, LOCK_PROFILES + WITHOUT_WAITING, ids)
    pooled = [owner for owner, profile in profiles.items() if profile.pooled]
    return profiles, _memberships(cursor, pooled, now) if pooled else {}


def lock_pools_of(cursor: Cursor, memberships: Mapping[int, list[Membership]]) -> list[int]:
    """Lock the pools of members who are locked; returns them."""
    pools = sorted({one.pool_id for own in memberships.values() for one in own})
    if pools:
        lock_pools(cursor, pools)
    return pools


def lock_standing(cursor: Cursor, ids: Sequence[int], *, now: datetime) -> Standing:
    """Lock subscribers and their pools, and read what may pay for them."""
    standing = read_own(cursor, *lock_owners(cursor, ids, now=now))
    lock_shared(cursor, standing, now=now)
    return standing


def read_own(
    cursor: Cursor,
    profiles: dict[int, Profile],
    memberships: dict[int, list[Membership]],
    *,
    found: Mapping[int, list[OpenBucket]] = MappingProxyType({}),
    kept: Container[int] = (),
) -> Standing:
    """What locked subscribers have themselves; the buckets of some may be `found` already. What
    their pools have is missing until these are locked."""
    own = dict(found)
    if unknown := sorted(profiles.keys() - own.keys()):
        own |= _open_buckets(cursor, OPEN_BUCKETS, unknown)
    return Standing(profiles, own, memberships, kept=kept)


def lock_shared(cursor: Cursor, standing: Standing, *, now: datetime) -> None:
    """Lock the pools of locked subscribers, and read what may pay there."""
    memberships = standing.memberships
    pools = lock_pools_of(cursor, memberships)
    if not pools:
        return
    capped = {owner: own for owner, own in memberships.items() if any(one.is_capped for one in own)}
    if capped:
        _read_pool_usage(cursor, capped, now)
    standing.of_pools = _open_buckets(cursor, OPEN_POOL_BUCKETS, pools)
    for pool_id, shared in standing.of_pools.items():
        for bucket in shared:
            bucket.pool_id = pool_id


def _open_buckets(
    cursor: Cursor, statement: str, owners: Sequence[int]
) -> dict[int, list[OpenBucket]]:
    """Open buckets by owner, in burn order."""
    found: dict[int, list[OpenBucket]] = {}
    owner_id, own = 0, list[OpenBucket]()
    with instants_as_numbers(cursor) as numbers:
        rows = numbers.execute(statement, {"ids": array(owners)}, prepare=True).fetchall()
    for row in rows:
        bucket = OpenBucket(*row)
        if bucket.owner_id != owner_id:
            owner_id, own = bucket.owner_id, []
            found[owner_id] = own
        own.append(bucket)
    for own in found.values():
        if len(own) > 1:
            own.sort()
    return found


def _memberships(cursor: Cursor, ids: Sequence[int], now: datetime) -> dict[int, list[Membership]]:
    found: dict[int, list[Membership]] = defaultdict(list)
    rows = cursor.execute(
        MEMBERSHIPS, {"ids": array(sorted(ids)), "since": now - OLDEST_USAGE}
    ).fetchall()
    for owner, *row in rows:
        found[owner].append(Membership(*row))
    return found


def _read_pool_usage(
    cursor: Cursor, memberships: dict[int, list[Membership]], now: datetime
) -> None:
    since = cycle_of(now - OLDEST_USAGE)
    taken: dict[tuple[int, int], Taken] = defaultdict(Taken)
    rows = cursor.execute(
        POOL_USAGE, {"ids": array(sorted(memberships)), "since": since}
    ).fetchall()
    for owner, pool_id, day, mt in rows:
        taken[owner, pool_id].add(day, mt)
    for owner, pool_id, mt in cursor.execute(POOL_HOLDS, {"ids": array(sorted(memberships))}):
        taken[owner, pool_id].held_mt = mt
    for owner, own in memberships.items():
        for membership in own:
            # One object for all stays in a pool: leaving and coming back renews no cap.
            membership.taken = taken[owner, membership.pool_id]
