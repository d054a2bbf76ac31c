"""Who may be served: blocks that nodes follow through the feed, and notices on the way there.

A subscriber is blocked when suspended or terminated, or when nothing is left and the plan sells
nothing beyond. Whoever decides holds the subscriber's profile; the feed is written last, under
one advisory lock until commit, so that its ids become visible in order and no poller misses one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from django.db import transaction

from . import callbacks, notices
from .database import ADVISORY_LOCK, BLOCK_FEED, Cursor, copied_time, fast_cursor
from .locking import lock_profiles, lock_standing
from .models import BlockChange
from .notices import Reached
from .periods import cycle_of, day_of, minute_of_day
from .standing import Profile, Standing
from .waterfall import OpenBucket

SET_BLOCKED = """
    UPDATE usage_chargingprofile AS profile SET blocked = verdict.reason
      FROM unnest(%(owners)s::bigint[], %(reasons)s::text[]) AS verdict (subscriber_id, reason)
     WHERE profile.subscriber_id = verdict.subscriber_id
"""

ADD_BLOCK_CHANGES = """
    INSERT INTO usage_blockchange (subscriber_id, msisdn, blocked, reason, at)
    SELECT subscriber.id, subscriber.msisdn, verdict.reason <> '', verdict.reason, %(at)s
      FROM unnest(%(owners)s::bigint[], %(reasons)s::text[]) AS verdict (subscriber_id, reason)
      JOIN accounts_subscriber AS subscriber ON subscriber.id = verdict.subscriber_id
     ORDER BY subscriber.id
    RETURNING id, subscriber_id, reason
"""

PRICED_SO_FAR = """
    SELECT total.subscriber_id, total.priced_mt
      FROM usage_cycleoverage AS total
     WHERE total.subscriber_id = ANY(%(ids)s) AND total.cycle = %(cycle)s
     ORDER BY total.subscriber_id
"""

# Numbers of a subscriber of which the feed's newest word is not what holds: the present number
# follows the block, whoever had it before; one given up is open unless another was told on it.
MISTOLD_NUMBERS = """
    SELECT number.msisdn, number.reason
      FROM (SELECT DISTINCT assignment.msisdn,
                   assignment.msisdn = subscriber.msisdn AS is_held,
                   CASE WHEN assignment.msisdn = subscriber.msisdn
                        THEN profile.blocked ELSE '' END AS reason
              FROM accounts_numberassignment AS assignment
              JOIN accounts_subscriber AS subscriber ON subscriber.id = assignment.subscriber_id
              JOIN usage_chargingprofile AS profile ON profile.subscriber_id = subscriber.id
             WHERE assignment.subscriber_id = %(subscriber_id)s) AS number
      LEFT JOIN LATERAL (SELECT change.subscriber_id, change.reason
                           FROM usage_blockchange AS change
                          WHERE change.msisdn = number.msisdn
                          ORDER BY change.id DESC
                          LIMIT 1) AS told ON TRUE
     WHERE COALESCE(told.reason, '') <> number.reason
       AND (number.is_held OR told.subscriber_id = %(subscriber_id)s)
     ORDER BY number.msisdn
"""

TELL_NUMBER = """
    INSERT INTO usage_blockchange (subscriber_id, msisdn, blocked, reason, at)
    VALUES (%(subscriber_id)s, %(msisdn)s, %(blocked)s, %(reason)s, %(at)s)
"""

# Subscribers whose block is not what their state and their buckets of this instant say.
MISJUDGED = """
    WITH open_bucket AS (
        SELECT bucket.subscriber_id, bucket.pool_id
          FROM usage_bucket AS bucket
         WHERE bucket.closed_at IS NULL AND bucket.remaining_mt > 0
           AND bucket.valid_from <= %(now)s AND bucket.valid_until > %(now)s
           AND CASE WHEN bucket.minute_from < bucket.minute_until
                    THEN %(minute)s >= bucket.minute_from AND %(minute)s < bucket.minute_until
                    ELSE %(minute)s >= bucket.minute_from OR %(minute)s < bucket.minute_until END
    )
    SELECT profile.subscriber_id
      FROM usage_chargingprofile AS profile
      JOIN accounts_subscriber AS subscriber ON subscriber.id = profile.subscriber_id
      LEFT JOIN usage_cycleoverage AS total
        ON total.subscriber_id = profile.subscriber_id AND total.cycle = %(cycle)s
     WHERE profile.state <> subscriber.state
        OR profile.blocked <> CASE
               WHEN subscriber.state IN ('suspended', 'terminated') THEN subscriber.state
               WHEN subscriber.state <> 'active' THEN ''
               WHEN profile.beyond = 'payg'
                    AND COALESCE(total.priced_mt, 0) < profile.payg_cap_mt THEN ''
               WHEN EXISTS (SELECT 1 FROM open_bucket
                             WHERE open_bucket.subscriber_id = profile.subscriber_id) THEN ''
               WHEN profile.pooled AND EXISTS (
                    SELECT 1 FROM usage_poolmember AS member
                      JOIN open_bucket ON open_bucket.pool_id = member.pool_id
                     WHERE member.subscriber_id = profile.subscriber_id
                       AND member.joined_at <= %(now)s
                       AND (member.left_at IS NULL OR member.left_at > %(now)s)
                       AND member.cycle_cap_mt > COALESCE((
                           SELECT SUM(used.mt) FROM usage_poolusage AS used
                            WHERE used.subscriber_id = member.subscriber_id
                              AND used.pool_id = member.pool_id AND used.day >= %(cycle)s), 0)
                       AND member.day_cap_mt > COALESCE((
                           SELECT SUM(used.mt) FROM usage_poolusage AS used
                            WHERE used.subscriber_id = member.subscriber_id
                              AND used.pool_id = member.pool_id AND used.day = %(day)s), 0)
                    ) THEN ''
               ELSE 'quota_exhausted'
           END
     ORDER BY profile.subscriber_id
     LIMIT %(limit)s
"""

SYNC_STATES = """
    UPDATE usage_chargingprofile AS profile SET state = subscriber.state
      FROM accounts_subscriber AS subscriber
     WHERE subscriber.id = profile.subscriber_id AND profile.subscriber_id = ANY(%(ids)s)
       AND profile.state <> subscriber.state
"""


@dataclass(frozen=True)
class FeedPage:
    """Changes after a cursor, oldest first, and the cursor to ask with next."""

    changes: list[BlockChange]
    cursor: int


def settle(
    cursor: Cursor,
    *,
    standing: Standing,
    latest: Mapping[int, datetime],
    totals: Mapping[tuple[int, date], int],
    now: datetime,
) -> list[Profile]:
    """Find out who has to be blocked or served again, and tell notices. These tell of one's own
    tokens, but that all is used up only once a pool has nothing left for its member either.

    `latest` is the time of each one's newest event in hand, `totals` the priced overage (mt) by
    subscriber and cycle. Sets `blocked` on the profiles, and returns those that change: `block`
    writes them.
    """
    cycle = cycle_of(now)
    instant = copied_time(now)
    changed: list[Profile] = []
    reached: list[Reached] = []
    for owner, profile in standing.profiles.items():
        size, left, usable = _weigh(standing.own.get(owner, ()), instant)
        active = profile.state == "active"
        if not usable or not active or profile.blocked:
            spent = totals.get((owner, cycle), 0)
            verdict = _verdict(standing, profile, latest.get(owner, now), spent, now)
            if verdict != profile.blocked:
                profile.blocked = verdict
                changed.append(profile)
        if active and 2 * left <= size and size:  # the first threshold at least
            used = (size - left) * 100 // size
            told = profile.noticed_percent if profile.noticed_cycle == cycle else 0
            percents = [percent for percent in notices.SHARES if told < percent <= used]
            if used == 100 and owner in standing.memberships and standing.has_left(owner, now):
                percents = [percent for percent in percents if percent < 100]  # the pool goes on
            if percents:
                reached.append(Reached(owner, percents))
    if reached:
        notices.tell(cursor, reached, cycle=cycle, now=now)
    return changed


def block(cursor: Cursor, changed: Sequence[Profile], *, now: datetime) -> None:
    """Write verdicts, the feed (last of all locks), and what nodes are told of them."""
    if not changed:
        return
    owners = [profile.subscriber_id for profile in changed]
    verdicts = {"owners": owners, "reasons": [profile.blocked for profile in changed]}
    cursor.execute(SET_BLOCKED, verdicts)
    cursor.execute(ADVISORY_LOCK, {"guard": BLOCK_FEED})
    changes = cursor.execute(ADD_BLOCK_CHANGES, verdicts | {"at": now}).fetchall()
    for number, owner, reason in changes:  # fetched before the cursor is used again
        callbacks.tell_verdict(
            cursor, subscriber_id=owner, blocked=reason, cause=f"block:{number}", now=now
        )


def _weigh(buckets: Sequence[OpenBucket], now: int) -> tuple[int, int, bool]:
    """What is valid now, in mt: its size and what is left of it, and whether any of that may be
    used at this hour."""
    size = left = 0
    usable = False
    for bucket in buckets:
        if bucket.valid_from <= now < bucket.valid_until:
            rest = bucket.available_mt + bucket.reserved_mt
            size += bucket.size_mt
            left += rest
            usable = usable or (rest > 0 and (bucket.hours is None or bucket.is_valid(now)))
    return size, left, usable


def _verdict(
    standing: Standing,
    profile: Profile,
    latest: datetime,
    spent_mt: int,
    now: datetime,
) -> str:
    """The block that should be in force. Usage of the past blocks nobody who has tokens now, and
    unblocks nobody who has none. What a session holds is not used yet, so it counts as left."""
    owner = profile.subscriber_id
    if profile.state in {"suspended", "terminated"}:
        return profile.state
    if profile.state != "active":
        return ""
    if profile.beyond == "payg" and spent_mt < profile.payg_cap_mt:
        return ""
    if standing.has_left(owner, now):
        return ""
    return "quota_exhausted" if not standing.has_left(owner, latest) else profile.blocked


@transaction.atomic
def reconsider(*, subscriber_ids: Sequence[int], now: datetime, refill: str = "") -> None:
    """Decide anew for these subscribers, after a grant or a change of state or terms.

    `refill` names the grant, if it was one: their sessions are told to ask again, once a grant.
    """
    with fast_cursor() as cursor:
        standing = lock_standing(cursor, sorted(set(subscriber_ids)), now=now)
        totals = priced_so_far(cursor, standing, now)
        changed = settle(cursor, standing=standing, latest={}, totals=totals, now=now)
        block(cursor, changed, now=now)
        if refill:
            callbacks.reauthorize(cursor, subscriber_ids=subscriber_ids, cause=refill, now=now)


def priced_so_far(cursor: Cursor, standing: Standing, now: datetime) -> dict[tuple[int, date], int]:
    """Priced overage (mt) of the running cycle by subscriber and cycle."""
    ids, cycle = sorted(standing.profiles), cycle_of(now)
    rows = cursor.execute(PRICED_SO_FAR, {"ids": ids, "cycle": cycle})
    return {(owner, cycle): priced for owner, priced in rows}


@transaction.atomic
def tell_numbers(*, subscriber_id: int, now: datetime) -> None:
    """After a change of number, let the feed say of each number what holds for it now: nodes
    follow numbers, and a block must neither stay with one given up nor miss one taken."""
    row = {"subscriber_id": subscriber_id, "at": now}
    with fast_cursor() as cursor:
        lock_profiles(cursor, [subscriber_id])
        if not cursor.execute(MISTOLD_NUMBERS, row).fetchall():
            return
        cursor.execute(ADVISORY_LOCK, {"guard": BLOCK_FEED})
        for msisdn, reason in cursor.execute(MISTOLD_NUMBERS, row).fetchall():
            word = {"msisdn": msisdn, "blocked": bool(reason), "reason": reason}
            cursor.execute(TELL_NUMBER, row | word)


def sweep(*, now: datetime, limit: int = 2000) -> int:
    """Mend blocks that time alone has changed (a bucket began or ended, a cycle turned).

    Returns how many were looked at again, at most `limit`; each hundred is its own transaction.
    """
    with fast_cursor() as cursor:
        instant = {
            "now": now,
            "cycle": cycle_of(now),
            "day": day_of(now),
            "minute": minute_of_day(now),
        }
        rows = cursor.execute(MISJUDGED, instant | {"limit": limit})
        ids = [owner for (owner,) in rows]
    for start in range(0, len(ids), 100):
        part = ids[start : start + 100]
        with transaction.atomic(), fast_cursor() as cursor:
            lock_profiles(cursor, part)
            cursor.execute(SYNC_STATES, {"ids": part})
            reconsider(subscriber_ids=part, now=now)
    return len(ids)


def changes_after(*, cursor: int, limit: int = 1000) -> FeedPage:
    """The feed that nodes poll: one read of the primary key, at most `limit` rows."""
    changes = list(BlockChange.objects.filter(id__gt=cursor).order_by("id")[:limit])
    return FeedPage(changes, changes[-1].id if changes else cursor)
