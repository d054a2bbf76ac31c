"""What was used: reads for the API, the portal and the admin. What is left stands in `balances`."""

from datetime import datetime
from typing import Any

from .amended import as_they_stand
from .database import fast_cursor
from .models import UsageEvent

# By how much the events of one subscriber in [start, end) were amended, and the weight that holds.
AMENDED = """
    WITH amended AS (
        SELECT change.event_id,
               SUM(change.input_tokens) AS input_tokens,
               SUM(change.cached_tokens) AS cached_tokens,
               SUM(change.output_tokens) AS output_tokens,
               SUM(change.reasoning_tokens) AS reasoning_tokens,
               SUM(change.mt) AS mt,
               BOOL_OR(change.kind = 'void') AS voided,
               (ARRAY_AGG(change.weight_id ORDER BY change.id DESC))[1] AS weight_id
          FROM usage_amendment AS change
         WHERE change.subscriber_id = %(subscriber_id)s
           AND change.occurred_at >= %(start)s AND change.occurred_at < %(end)s
         GROUP BY change.event_id
    )
"""

# Usage of one subscriber in [start, end) as amended, grouped; a voided event is none. Days and
# hours are the billing zone's.
USAGE_SERIES = """
    {amended}
    SELECT {key} AS key,
           SUM(event.input_tokens + COALESCE(amended.input_tokens, 0))::bigint AS input_tokens,
           SUM(event.cached_tokens + COALESCE(amended.cached_tokens, 0))::bigint AS cached_tokens,
           SUM(event.output_tokens + COALESCE(amended.output_tokens, 0))::bigint AS output_tokens,
           SUM(event.reasoning_tokens + COALESCE(amended.reasoning_tokens, 0))::bigint
               AS reasoning_tokens,
           SUM(event.mt + COALESCE(amended.mt, 0))::bigint AS mt,
           COUNT(*) AS events
      FROM usage_usageevent AS event
      LEFT JOIN amended ON amended.event_id = event.id
      LEFT JOIN usage_inferencemodel AS model ON model.id = event.model_id
     WHERE event.subscriber_id = %(subscriber_id)s
       AND event.occurred_at >= %(start)s AND event.occurred_at < %(end)s
       AND amended.voided IS NOT TRUE
     GROUP BY 1
     ORDER BY 1
"""

LOCAL = "event.occurred_at AT TIME ZONE 'Asia/Shanghai'"
KEYS = {
    "day": f"to_char({LOCAL}, 'YYYY-MM-DD')",
    "hour": f"to_char({LOCAL}, 'YYYY-MM-DD\"T\"HH24:00+08:00')",
    "model": "COALESCE(model.code, event.model_id::text)",
}
SERIES = {
    name: USAGE_SERIES.replace("{amended}", AMENDED).replace("{key}", key)
    for name, key in KEYS.items()
}

# The same split by kind of token: raw counts, and what each weighs by the weight that holds.
USAGE_BY_KIND = """
    {amended}
    SELECT kind.key,
           SUM(kind.tokens)::bigint AS tokens,
           SUM(kind.tokens * kind.milli)::bigint AS mt,
           COUNT(*) FILTER (WHERE kind.tokens > 0) AS events
      FROM usage_usageevent AS event
      LEFT JOIN amended ON amended.event_id = event.id
      JOIN usage_weight AS weight ON weight.id = COALESCE(amended.weight_id, event.weight_id)
      CROSS JOIN LATERAL (VALUES
           ('input', event.input_tokens + COALESCE(amended.input_tokens, 0), weight.input_milli),
           ('cached', event.cached_tokens + COALESCE(amended.cached_tokens, 0),
            weight.cached_milli),
           ('output', event.output_tokens + COALESCE(amended.output_tokens, 0),
            weight.output_milli),
           ('reasoning', event.reasoning_tokens + COALESCE(amended.reasoning_tokens, 0),
            weight.reasoning_milli)
      ) AS kind (key, tokens, milli)
     WHERE event.subscriber_id = %(subscriber_id)s
       AND event.occurred_at >= %(start)s AND event.occurred_at < %(end)s
       AND amended.voided IS NOT TRUE
     GROUP BY 1
     ORDER BY 1
"""
SERIES["kind"] = USAGE_BY_KIND.replace("{amended}", AMENDED)


def usage_series(
    *, subscriber_id: int, start: datetime, end: datetime, group_by: str
) -> list[dict[str, Any]]:
    """Usage in [start, end) by day, hour, model or kind, oldest or first name first.

    Rows: key, the four raw counts, mt, events; by kind: key, tokens, mt, events. Groups without
    usage are absent.
    """
    statement = SERIES[group_by]
    with fast_cursor() as cursor:
        cursor.execute(
            statement, {"subscriber_id": subscriber_id, "start": start, "end": end}, prepare=True
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def recent_events(
    *, subscriber_id: int, before: tuple[datetime, int] | None, since: datetime, limit: int
) -> list[UsageEvent]:
    """A subscriber's events from `since` on as amended, newest first, those before (time, id) if
    given; `voided` is set on each."""
    events = UsageEvent.objects.filter(subscriber_id=subscriber_id, occurred_at__gte=since)
    if before is not None:
        at, event_id = before
        events = events.filter(occurred_at__lte=at).exclude(occurred_at=at, id__gte=event_id)
    return as_they_stand(list(events.order_by("-occurred_at", "-id")[:limit]))
