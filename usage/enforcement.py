"""Who may be served: blocks that nodes follow through the feed, and notices on the way there.

A subscriber is blocked when suspended or terminated, or when nothing is left and the plan sells
nothing beyond. Whoever decides holds the subscriber's profile; the feed is written last, under
one advisory lock until commit, so that its ids become visible in order and no poller misses one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from django.db import transaction

from accounts import outbox

from . import callbacks
from .database import ADVISORY_LOCK, BLOCK_FEED, Cursor, fast_cursor
from .locking import Profile, Standing, lock_profiles, lock_standing
from .models import BlockChange
from .notices import notice_text
from .periods import cycle_of, day_of, minute_of_day
from .waterfall import OpenBucket

THRESHOLDS = (50, 80, 100)  # percent of the tokens valid now

SET_BLOCKED = """
    UPDATE usage_chargingprofile SET blocked = %(blocked)s
     WHERE subscriber_id = %(subscriber_id)s
"""

ADD_BLOCK_CHANGE = """
    INSERT INTO usage_blockchange (subscriber_id, msisdn, blocked, reason, at)
    SELECT subscriber.id, subscriber.msisdn, %(is_blocked)s, %(reason)s, %(at)s
      FROM accounts_subscriber AS subscriber
     WHERE subscriber.id = %(subscriber_id)s
    RETURNING id
"""

SET_NOTICED = """
    UPDATE usage_chargingprofile
       SET noticed_cycle = %(cycle)s, noticed_percent = %(percent)s
     WHERE subscriber_id = %(subscriber_id)s
"""

ADD_NOTICE = """
    INSERT INTO usage_notice (subscriber_id, cycle, percent, at)
    VALUES (%(subscriber_id)s, %(cycle)s, %(percent)s, %(at)s)
        ON CONFLICT (subscriber_id, cycle, percent) DO NOTHING
    RETURNING percent
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
) -> None:
    """Bring blocks and notices of locked subscribers up to date.

    `latest` is the time of each one's newest event in hand, `totals` the priced overage (mt) by
    subscriber and cycle. Sets `blocked` on the profiles.
    """
    changed = []
    for owner, profile in standing.profiles.items():
        verdict = _verdict(standing, profile, latest.get(owner, now), totals, now)
        if verdict != profile.blocked:
            profile.blocked = verdict
            changed.append(profile)
        _notice(cursor, profile, standing.own.get(owner, ()), now)
    if not changed:
        return
    cursor.execute(ADVISORY_LOCK, {"guard": BLOCK_FEED})
    for profile in changed:
        row = {"subscriber_id": profile.subscriber_id, "blocked": profile.blocked}
        cursor.execute(SET_BLOCKED, row)
        change = cursor.execute(
            ADD_BLOCK_CHANGE,
            row | {"is_blocked": bool(profile.blocked), "reason": profile.blocked, "at": now},
        ).fetchone()
        if change is not None:
            callbacks.tell_verdict(
                cursor,
                subscriber_id=profile.subscriber_id,
                blocked=profile.blocked,
                cause=f"block:{change[0]}",
                now=now,
            )


def _verdict(
    standing: Standing,
    profile: Profile,
    latest: datetime,
    totals: Mapping[tuple[int, date], int],
    now: datetime,
) -> str:
    """The block that should be in force. Usage of the past blocks nobody who has tokens now, and
    unblocks nobody who has none. What a session holds is not used yet, so it counts as left."""
    owner = profile.subscriber_id
    if profile.state in {"suspended", "terminated"}:
        return profile.state
    if profile.state != "active":
        return ""
    if profile.beyond == "payg" and totals.get((owner, cycle_of(now)), 0) < profile.payg_cap_mt:
        return ""
    if standing.left_mt(owner, now):
        return ""
    return "quota_exhausted" if not standing.left_mt(owner, latest) else profile.blocked


def _notice(cursor: Cursor, profile: Profile, buckets: Sequence[OpenBucket], now: datetime) -> None:
    """Tell a subscriber once a cycle that a share of what is valid now is used."""
    valid = [bucket for bucket in buckets if bucket.valid_from <= now < bucket.valid_until]
    size = sum(bucket.size_mt for bucket in valid)
    if not size or profile.state != "active":
        return
    cycle = cycle_of(now)
    told = profile.noticed_percent if profile.noticed_cycle == cycle else 0
    left = sum(bucket.available_mt + bucket.reserved_mt for bucket in valid)
    used = (size - left) * 100 // size
    reached = [percent for percent in THRESHOLDS if told < percent <= used]
    if not reached:
        return
    row = {"subscriber_id": profile.subscriber_id, "cycle": cycle, "at": now}
    for percent in reached:
        if cursor.execute(ADD_NOTICE, row | {"percent": percent}).fetchone():
            msisdn, body = notice_text(subscriber_id=profile.subscriber_id, percent=percent)
            outbox.enqueue(
                key=f"notice:{profile.subscriber_id}:{cycle:%Y-%m}:{percent}",
                recipient=msisdn,
                template=f"used_{percent}",
                body=body,
                now=now,
                subscriber_id=profile.subscriber_id,
            )
    cursor.execute(SET_NOTICED, row | {"percent": reached[-1]})


@transaction.atomic
def reconsider(*, subscriber_ids: Sequence[int], now: datetime, refill: str = "") -> None:
    """Decide anew for these subscribers, after a grant or a change of state or terms.

    `refill` names the grant, if it was one: their sessions are told to ask again, once a grant.
    """
    with fast_cursor() as cursor:
        standing = lock_standing(cursor, sorted(set(subscriber_ids)), now=now)
        totals = priced_so_far(cursor, standing, now)
        settle(cursor, standing=standing, latest={}, totals=totals, now=now)
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
