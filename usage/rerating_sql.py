"""The statements of rating a period again. A period is instants [start, end) of one model."""

# Events with what they amount to (`former_mt`) and what the given weights make of their counts.
RATED = """
    WITH change AS (
        SELECT amendment.event_id,
               SUM(amendment.input_tokens) AS input_tokens,
               SUM(amendment.cached_tokens) AS cached_tokens,
               SUM(amendment.output_tokens) AS output_tokens,
               SUM(amendment.reasoning_tokens) AS reasoning_tokens,
               SUM(amendment.mt) AS mt
          FROM usage_amendment AS amendment
         WHERE amendment.model_id = %(model_id)s {amended_by}
           AND amendment.occurred_at >= %(start)s AND amendment.occurred_at < %(end)s
         GROUP BY amendment.event_id
    ), rated AS (
        SELECT event.id,
               event.subscriber_id,
               event.occurred_at,
               event.mt + COALESCE(change.mt, 0) AS former_mt,
               (event.input_tokens + COALESCE(change.input_tokens, 0)) * weight.input_milli
               + (event.cached_tokens + COALESCE(change.cached_tokens, 0)) * weight.cached_milli
               + (event.output_tokens + COALESCE(change.output_tokens, 0)) * weight.output_milli
               + (event.reasoning_tokens + COALESCE(change.reasoning_tokens, 0))
                 * weight.reasoning_milli AS mt
          FROM usage_usageevent AS event
          LEFT JOIN change ON change.event_id = event.id
          JOIN usage_weight AS weight
            ON weight.id = ANY(%(weights)s)
           AND weight.valid_from <= event.occurred_at
           AND (weight.valid_until IS NULL OR weight.valid_until > event.occurred_at)
         WHERE event.model_id = %(model_id)s
           AND event.occurred_at >= %(start)s AND event.occurred_at < %(end)s
           {used_by}
    )
"""

# The weights in force somewhere in the period.
WEIGHTS_OF = """
    SELECT weight.id
      FROM usage_weight AS weight
     WHERE weight.model_id = %(model_id)s AND weight.withdrawn_at IS NULL
       AND weight.valid_from < %(end)s
       AND (weight.valid_until IS NULL OR weight.valid_until > %(start)s)
     ORDER BY weight.valid_from
"""

# What would change in all, and the subscribers with the largest differences.
TOTALS = """
    {rated}
    SELECT COUNT(*) AS events,
           COUNT(*) FILTER (WHERE rated.mt <> rated.former_mt) AS changed,
           COALESCE(SUM(rated.former_mt), 0)::bigint AS former_mt,
           COALESCE(SUM(rated.mt), 0)::bigint AS mt,
           COUNT(DISTINCT rated.subscriber_id)
               FILTER (WHERE rated.mt <> rated.former_mt) AS subscribers
      FROM rated
"""

BY_SUBSCRIBER = """
    {rated}
    SELECT rated.subscriber_id AS subscriber,
           COUNT(*) AS events,
           SUM(rated.former_mt)::bigint AS former_mt,
           SUM(rated.mt)::bigint AS mt,
           SUM(rated.mt - rated.former_mt)::bigint AS difference_mt
      FROM rated
     WHERE rated.mt <> rated.former_mt
     GROUP BY rated.subscriber_id
     ORDER BY ABS(SUM(rated.mt - rated.former_mt)) DESC, rated.subscriber_id
     LIMIT %(most)s
"""

# Some subscribers, page by page, and what would change for them.
OWNERS_AFTER = """
    SELECT profile.subscriber_id
      FROM usage_chargingprofile AS profile
     WHERE profile.subscriber_id > %(after)s
     ORDER BY profile.subscriber_id
     LIMIT %(most)s
"""

DIFFERENCES = """
    {rated}
    SELECT rated.subscriber_id AS subscriber,
           COUNT(*) AS events,
           SUM(rated.mt - rated.former_mt)::bigint AS difference_mt
      FROM rated
     WHERE rated.mt <> rated.former_mt
     GROUP BY rated.subscriber_id
     ORDER BY rated.subscriber_id
"""

# Who still has events to be rated again, and which; one rerating rates an event again once.
OWNERS_LEFT = """
    {rated}
    SELECT DISTINCT rated.subscriber_id
      FROM rated
     WHERE rated.mt <> rated.former_mt
       AND NOT EXISTS (SELECT 1 FROM usage_amendment AS done
                        WHERE done.key = %(prefix)s::text || rated.id)
     ORDER BY rated.subscriber_id
"""

EVENTS_LEFT = """
    {rated}
    SELECT rated.id
      FROM rated
     WHERE rated.mt <> rated.former_mt
       AND NOT EXISTS (SELECT 1 FROM usage_amendment AS done
                        WHERE done.key = %(prefix)s::text || rated.id)
     ORDER BY rated.subscriber_id, rated.occurred_at, rated.id
     LIMIT %(limit)s
"""

EVERYBODY = RATED.replace("{amended_by}", "").replace("{used_by}", "")
SOME = RATED.replace("{amended_by}", "AND amendment.subscriber_id = ANY(%(owners)s)").replace(
    "{used_by}", "AND event.subscriber_id = ANY(%(owners)s)"
)

TOTALS = TOTALS.replace("{rated}", EVERYBODY)
BY_SUBSCRIBER = BY_SUBSCRIBER.replace("{rated}", EVERYBODY)
OWNERS_LEFT = OWNERS_LEFT.replace("{rated}", EVERYBODY)
EVENTS_LEFT = EVENTS_LEFT.replace("{rated}", SOME)
DIFFERENCES = DIFFERENCES.replace("{rated}", SOME)

# What a rerating has changed so far.
APPLIED = """
    SELECT COUNT(*) AS changed, COALESCE(SUM(amendment.mt), 0)::bigint AS difference_mt
      FROM usage_amendment AS amendment
     WHERE amendment.key LIKE %(prefix)s::text || '%%'
"""

# The same of some subscribers, one a row.
APPLIED_DIFFERENCES = """
    SELECT amendment.subscriber_id AS subscriber,
           COUNT(*) AS events,
           SUM(amendment.mt)::bigint AS difference_mt
      FROM usage_amendment AS amendment
     WHERE amendment.subscriber_id = ANY(%(owners)s)
       AND amendment.occurred_at >= %(start)s AND amendment.occurred_at < %(end)s
       AND starts_with(amendment.key, %(prefix)s::text)
     GROUP BY amendment.subscriber_id
     ORDER BY amendment.subscriber_id
"""
