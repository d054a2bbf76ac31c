"""What limits of tokens are held against: what was used by billing day, of those who have limits.

Summing events at each reserve would take longer with every event of the month. So from the first
limit on a subscriber's usage is also summed by day, and by the key that an event names, in the
transaction that charges or corrects it and under the same lock; `limited_since` on the profile is
the day from which on the sums are whole.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta

from .database import Cursor, array
from .models import LimitUsage
from .periods import day_of, day_start

ALL_KEYS = 0  # in the place of a key: whatever the event names
KEPT = timedelta(days=100)  # more than the longest window, less than usage itself is kept

# Only of those who have limits, and of the days from which on their sums are whole.
ADD = """
    INSERT INTO usage_limitusage AS total (subscriber_id, api_key_id, day, mt)
    SELECT added.subscriber_id, added.api_key_id, added.day, added.mt
      FROM unnest(%(owners)s::bigint[], %(keys)s::bigint[], %(days)s::text[]::date[],
                  %(amounts)s::bigint[]) AS added (subscriber_id, api_key_id, day, mt)
      JOIN usage_chargingprofile AS profile ON profile.subscriber_id = added.subscriber_id
     WHERE profile.limited_since <= added.day
     ORDER BY added.subscriber_id, added.api_key_id, added.day
        ON CONFLICT (subscriber_id, api_key_id, day) DO UPDATE SET mt = total.mt + EXCLUDED.mt
"""

# The sums of what was used before there was a limit, corrections included.
SUM_UP = """
    WITH used AS (
        SELECT event.api_key_id, event.occurred_at, event.mt
          FROM usage_usageevent AS event
         WHERE event.subscriber_id = %(subscriber_id)s AND event.occurred_at >= %(since)s
         UNION ALL
        SELECT event.api_key_id, event.occurred_at, amendment.mt
          FROM usage_amendment AS amendment
          JOIN usage_usageevent AS event
            ON event.subscriber_id = amendment.subscriber_id
           AND event.occurred_at = amendment.occurred_at
           AND event.id = amendment.event_id
         WHERE amendment.subscriber_id = %(subscriber_id)s AND amendment.occurred_at >= %(since)s
    )
    INSERT INTO usage_limitusage (subscriber_id, api_key_id, day, mt)
    SELECT %(subscriber_id)s, counted.api_key_id,
           (used.occurred_at AT TIME ZONE 'Asia/Shanghai')::date, SUM(used.mt)
      FROM used
     CROSS JOIN LATERAL unnest(ARRAY[0, used.api_key_id]) AS counted (api_key_id)
     WHERE counted.api_key_id IS NOT NULL
     GROUP BY 1, 2, 3
"""

BEGIN = """
    UPDATE usage_chargingprofile SET limited_since = %(day)s
     WHERE subscriber_id = %(subscriber_id)s
"""

USED_SINCE = """
    SELECT COALESCE(SUM(used.mt), 0)::bigint
      FROM usage_limitusage AS used
     WHERE used.subscriber_id = %(subscriber_id)s AND used.api_key_id = %(api_key_id)s
       AND used.day >= %(day)s
"""


def add(cursor: Cursor, used: Iterable[tuple[int, int | None, date, int]]) -> None:
    """Add usage as (subscriber, API key that it names, billing day of use, mt); below zero what is
    taken back. Of subscribers without a limit nothing is kept."""
    sums: dict[tuple[int, int, date], int] = defaultdict(int)
    for owner, key_id, day, mt in used:
        sums[owner, ALL_KEYS, day] += mt
        if key_id is not None:
            sums[owner, key_id, day] += mt
    if sums:
        keys = sorted(sums)
        cursor.execute(
            ADD,
            {
                "owners": array(owner for owner, _key, _day in keys),
                "keys": array(key for _owner, key, _day in keys),
                "days": [day.isoformat() for _owner, _key, day in keys],
                "amounts": array(sums[key] for key in keys),
            },
        )


def begin(cursor: Cursor, *, subscriber_id: int, day: date) -> None:
    """Sum up what a locked subscriber has used since a billing day, and go on doing so."""
    row = {"subscriber_id": subscriber_id, "day": day, "since": day_start(day)}
    cursor.execute(SUM_UP, row)
    cursor.execute(BEGIN, row)


def used_since(cursor: Cursor, *, subscriber_id: int, api_key_id: int | None, day: date) -> int:
    """What a locked subscriber has used (mt), or what named this key, since a billing day."""
    row = {
        "subscriber_id": subscriber_id,
        "api_key_id": ALL_KEYS if api_key_id is None else api_key_id,
        "day": day,
    }
    [(used,)] = cursor.execute(USED_SINCE, row).fetchall()
    return int(used)


def purge(*, now: datetime, limit: int = 10_000) -> int:
    """Forget at most `limit` sums that no window reaches any more; returns how many."""
    before = day_of(now) - KEPT
    old = LimitUsage.objects.filter(day__lt=before).order_by("day").values("id")[:limit]
    return LimitUsage.objects.filter(id__in=old).delete()[0]
