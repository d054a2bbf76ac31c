"""Rollover: what a month leaves is good to the end of the next one, by the terms of its bucket.

Done in the transaction that closes the bucket, so that nothing is ever in both months or in none.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from .database import Cursor
from .models import Bucket

# What goes on of each bucket that is about to close; read after the locks of their owners.
ROLLED = """
    SELECT bucket.id, rolled.mt
      FROM usage_bucket AS bucket
      CROSS JOIN LATERAL (
           SELECT LEAST(bucket.rollover_cap_mt,
                        div(bucket.remaining_mt::numeric * bucket.rollover_percent, 100)
                  )::bigint AS mt) AS rolled
     WHERE bucket.id = ANY(%(ids)s) AND bucket.closed_at IS NULL AND bucket.reserved_mt = 0
       AND bucket.rollover_percent > 0 AND rolled.mt > 0
     ORDER BY bucket.id
"""

TAKE_OUT = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at)
    SELECT bucket.id, bucket.subscriber_id, 'rollover', -rolled.mt, %(now)s
      FROM unnest(%(ids)s::bigint[], %(amounts)s::bigint[]) AS rolled (bucket_id, mt)
      JOIN usage_bucket AS bucket ON bucket.id = rolled.bucket_id
     ORDER BY bucket.id
"""

# The buckets that follow: same owner, models and hours, from the old end to the end of the cycle
# that begins there. They roll over no more, so nothing reaches a third month.
OPEN_FOLLOWING = """
    INSERT INTO usage_bucket (
        subscriber_id, pool_id, kind, name, name_en, priority, model_ids, minute_from,
        minute_until, rollover_percent, rollover_cap_mt, granted_mt, adjusted_mt, remaining_mt,
        reserved_mt, valid_from, valid_until, close_at, created_at, key)
    SELECT bucket.subscriber_id, bucket.pool_id, 'rollover', bucket.name, bucket.name_en,
           %(priority)s, bucket.model_ids, bucket.minute_from, bucket.minute_until, 0, 0, 0, 0,
           0, 0, bucket.valid_until, following.ends_at,
           GREATEST(following.ends_at, %(now)s) + %(grace)s, %(now)s, 'rollover:' || bucket.id
      FROM usage_bucket AS bucket
      CROSS JOIN LATERAL (
           SELECT (date_trunc('month', bucket.valid_until AT TIME ZONE 'Asia/Shanghai')
                   + INTERVAL '1 month') AT TIME ZONE 'Asia/Shanghai' AS ends_at) AS following
     WHERE bucket.id = ANY(%(ids)s)
     ORDER BY bucket.id
"""

PUT_IN = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at)
    SELECT bucket.id, bucket.subscriber_id, 'grant', rolled.mt, %(now)s
      FROM unnest(%(ids)s::bigint[], %(amounts)s::bigint[]) AS rolled (bucket_id, mt)
      JOIN usage_bucket AS bucket ON bucket.key = 'rollover:' || rolled.bucket_id
     ORDER BY bucket.id
"""


def roll_over(cursor: Cursor, ids: Sequence[int], *, grace: timedelta, now: datetime) -> None:
    """Move what these buckets leave, by their terms, into following ones; rounded down to the mt.

    The caller has locked their owners and closes them afterwards in the same transaction. Called
    late (after the following cycle), the tokens still open for usage of that time.
    """
    rolled = cursor.execute(ROLLED, {"ids": list(ids)}).fetchall()
    if not rolled:
        return
    amounts = {
        "ids": [bucket_id for bucket_id, _mt in rolled],
        "amounts": [mt for _bucket_id, mt in rolled],
        "now": now,
    }
    cursor.execute(TAKE_OUT, amounts)
    following = {"priority": Bucket.PRIORITIES[Bucket.Kind.ROLLOVER], "grace": grace}
    cursor.execute(OPEN_FOLLOWING, amounts | following)
    cursor.execute(PUT_IN, amounts)
