"""What time does to quota sessions: holds of abandoned ones go back, old answers are forgotten."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from config.retrying import retry_transaction

from .database import fast_cursor
from .locking import lock_owners, lock_pools_of
from .sessions import move_reserved, move_reserved_payg

# Open sessions that were left alone for too long, the longest first.
ABANDONED = """
    SELECT session.id, session.subscriber_id
      FROM usage_quotasession AS session
     WHERE session.state = 'open' AND session.supervised_until <= %(now)s
     ORDER BY session.supervised_until, session.id
     LIMIT %(limit)s
"""

# What those of them still hold that are still abandoned, read under the locks.
ABANDONED_HOLDS = """
    SELECT session.id, session.subscriber_id, session.hold_bucket_ids, session.hold_mts,
           session.hold_payg_mt
      FROM usage_quotasession AS session
     WHERE session.id = ANY(%(ids)s) AND session.state = 'open'
       AND session.supervised_until <= %(now)s
     ORDER BY session.id
"""

EXPIRE = """
    UPDATE usage_quotasession
       SET state = 'expired', granted_mt = 0, hold_bucket_ids = '{}', hold_mts = '{}',
           hold_payg_mt = 0
     WHERE id = ANY(%(ids)s)
"""

FORGET_ANSWERS = """
    DELETE FROM usage_quotaanswer
     WHERE id IN (SELECT answer.id FROM usage_quotaanswer AS answer
                   WHERE answer.at < %(before)s ORDER BY answer.at LIMIT %(limit)s)
    RETURNING session_id
"""

FORGET_SESSIONS = """
    DELETE FROM usage_quotasession AS session
     WHERE session.id = ANY(%(ids)s) AND session.state <> 'open'
       AND NOT EXISTS (SELECT 1 FROM usage_quotaanswer AS answer
                        WHERE answer.session_id = session.id)
"""


PART = 100  # sessions in one transaction


def expire_abandoned(*, now: datetime, limit: int = 2000) -> int:
    """Give back what sessions hold that were left alone for twice their validity.

    Exactly once, however many run at a time. Returns how many expired, at most `limit`.
    """
    with fast_cursor() as cursor:
        found = cursor.execute(ABANDONED, {"now": now, "limit": limit}).fetchall()
    expired = 0
    for start in range(0, len(found), PART):
        part = found[start : start + PART]
        expired += retry_transaction(lambda part=part: _expire(part, now))  # type: ignore[misc]
    return expired


@transaction.atomic
def _expire(found: list[tuple[int, int]], now: datetime) -> int:
    with fast_cursor() as cursor:
        _profiles, memberships = lock_owners(
            cursor, sorted({owner for _id, owner in found}), now=now
        )
        lock_pools_of(cursor, memberships)
        ids = [session_id for session_id, _owner in found]
        held = cursor.execute(ABANDONED_HOLDS, {"ids": ids, "now": now}).fetchall()
        move_reserved(
            cursor,
            (
                (bucket_id, -mt)
                for _id, _owner, bucket_ids, mts, _payg in held
                for bucket_id, mt in zip(bucket_ids, mts, strict=True)
            ),
        )
        for _id, owner, _bucket_ids, _mts, payg_mt in held:
            move_reserved_payg(cursor, subscriber_id=owner, mt=-payg_mt)
        cursor.execute(EXPIRE, {"ids": [row[0] for row in held]})
    return len(held)


@transaction.atomic
def forget_old(*, now: datetime, limit: int = 5000) -> int:
    """Forget answers older than QUOTA_ANSWER_DAYS, and sessions that have none left.

    Returns how many answers went, at most `limit`; call again until it returns 0.
    """
    before = now - timedelta(days=settings.QUOTA_ANSWER_DAYS)
    with fast_cursor() as cursor:
        rows = cursor.execute(FORGET_ANSWERS, {"before": before, "limit": limit}).fetchall()
        ids = sorted({session_id for (session_id,) in rows})
        cursor.execute(FORGET_SESSIONS, {"ids": ids})
    return len(rows)
