"""The statements of the proof by node and hour. The period is instants [from, until).

Hours are those of the billing zone, which are whole hours of UTC too.
"""

# What the nodes counted themselves. A sample ends the stretch since the one before it, so it
# counts in the hour that holds its last instant: one at 11:00:00 sharp belongs to ten o'clock.
COUNTED = """
    SELECT sample.node_id,
           date_trunc('hour', sample.at - interval '1 microsecond', 'UTC') AS hour,
           SUM(sample.input_tokens + sample.output_tokens)::bigint AS counted_tokens,
           SUM(sample.requests)::bigint AS counted_requests,
           COUNT(*) FILTER (WHERE sample.reset) AS resets
      FROM usage_nodecounter AS sample
     WHERE sample.at > %(from)s
       AND sample.at <= %(until)s
     GROUP BY 1, 2
     ORDER BY 1, 2
"""

# By how much these sums may be off, since some engines round what they tell: of each run of a model
# (from restart to restart), its ends alone count. By hour, and by node (without an hour).
ROUNDED = """
    SELECT edge.node_id,
           edge.hour,
           SUM(CASE WHEN edge.begins THEN edge.rounding_since ELSE 0 END
               + CASE WHEN edge.ends THEN edge.rounding ELSE 0 END)::bigint AS counted_rounding
      FROM (SELECT stretch.node_id,
                   stretch.hour,
                   stretch.rounding,
                   stretch.rounding_since,
                   ROW_NUMBER() OVER run = 1 AS begins,
                   COALESCE(LEAD(stretch.reset) OVER run, TRUE) AS ends
              FROM (SELECT sample.*,
                           CASE WHEN by.the_hour
                                THEN date_trunc('hour', sample.at - interval '1 microsecond', 'UTC')
                                END AS hour
                      FROM usage_nodecounter AS sample
                     CROSS JOIN (VALUES (TRUE), (FALSE)) AS by (the_hour)
                     WHERE sample.at > %(from)s
                       AND sample.at <= %(until)s) AS stretch
            WINDOW run AS (PARTITION BY stretch.node_id, stretch.model, stretch.hour
                               ORDER BY stretch.at)) AS edge
     WHERE edge.rounding > 0 OR edge.rounding_since > 0
     GROUP BY 1, 2
     ORDER BY 1, 2
"""

# Accepted events of the period, each in the hour of its use: the beginning of a statement, which
# goes on with PAID.
EVENTS = """
    WITH item AS (
        SELECT event.id,
               event.id AS event_id,
               event.node_id,
               date_trunc('hour', event.occurred_at, 'UTC') AS hour,
               event.input_tokens + event.cached_tokens + event.output_tokens
                   + event.reasoning_tokens AS tokens,
               event.mt
          FROM usage_usageevent AS event
         WHERE event.occurred_at >= %(from)s
           AND event.occurred_at < %(until)s
    )
"""

# Amendments of events of the period, in the node and hour of their event. Begins as EVENTS does.
AMENDMENTS = """
    WITH item AS (
        SELECT amendment.id,
               amendment.event_id,
               event.node_id,
               date_trunc('hour', event.occurred_at, 'UTC') AS hour,
               amendment.kind,
               amendment.input_tokens + amendment.cached_tokens + amendment.output_tokens
                   + amendment.reasoning_tokens AS tokens,
               amendment.mt
          FROM usage_amendment AS amendment
          JOIN usage_usageevent AS event
            ON event.subscriber_id = amendment.subscriber_id
           AND event.occurred_at = amendment.occurred_at
           AND event.id = amendment.event_id
         WHERE amendment.occurred_at >= %(from)s
           AND amendment.occurred_at < %(until)s
    )
"""

# What paid for each event or amendment, or was given back by it, and what of it is invoiced. Such a
# row carries the number of its event or amendment, and is never recorded long before its time.
PAID = """
    , moved AS (
        SELECT entry.event_id, -SUM(entry.amount_mt) AS mt
          FROM usage_ledgerentry AS entry
          JOIN item ON item.id = entry.event_id
         WHERE entry.kind IN ('debit', 'refund')
           AND entry.recorded_at >= %(from)s::timestamptz - interval '1 day'
         GROUP BY entry.event_id
    ), beyond AS (
        SELECT overage.event_id,
               SUM(overage.mt) FILTER (WHERE overage.priced) AS priced_mt,
               SUM(overage.mt) FILTER (WHERE NOT overage.priced) AS uncovered_mt,
               SUM(overage.mt) FILTER (WHERE invoice.id IS NOT NULL) AS invoiced_mt
          FROM usage_overage AS overage
          JOIN item ON item.id = overage.event_id
          LEFT JOIN invoicing_invoiceline AS line ON line.id = overage.invoice_line_id
          LEFT JOIN invoicing_invoice AS invoice
            ON invoice.id = line.invoice_id AND invoice.state = 'final'
         WHERE overage.occurred_at >= %(from)s
           AND overage.occurred_at < %(until)s
         GROUP BY overage.event_id
    )
"""

# The same summed by node and hour.
BY_HOUR = """
    SELECT item.node_id,
           item.hour,
           COUNT(*) AS items,
           SUM(item.tokens)::bigint AS tokens,
           SUM(item.mt)::bigint AS accepted_mt,
           COALESCE(SUM(moved.mt), 0)::bigint AS debited_mt,
           COALESCE(SUM(beyond.priced_mt), 0)::bigint AS overage_mt,
           COALESCE(SUM(beyond.uncovered_mt), 0)::bigint AS uncovered_mt,
           COALESCE(SUM(beyond.invoiced_mt), 0)::bigint AS invoiced_mt
      FROM item
      LEFT JOIN moved ON moved.event_id = item.id
      LEFT JOIN beyond ON beyond.event_id = item.id
     GROUP BY 1, 2
     ORDER BY 1, 2
"""

# Those that were not paid for, or given back, exactly. Must return no row.
UNBALANCED = """
    SELECT item.id,
           item.event_id,
           item.node_id,
           item.hour,
           item.mt AS expected,
           (COALESCE(moved.mt, 0) + COALESCE(beyond.priced_mt, 0)
               + COALESCE(beyond.uncovered_mt, 0))::bigint AS found
      FROM item
      LEFT JOIN moved ON moved.event_id = item.id
      LEFT JOIN beyond ON beyond.event_id = item.id
     WHERE item.mt <> COALESCE(moved.mt, 0) + COALESCE(beyond.priced_mt, 0)
                      + COALESCE(beyond.uncovered_mt, 0)
     ORDER BY item.id
     LIMIT %(most)s
"""

# They themselves, the largest of each node and hour first and no more than some.
NAMED = """
    SELECT named.node_id, named.hour, named.id, named.event_id, named.kind, named.tokens, named.mt
      FROM (SELECT item.*,
                   ROW_NUMBER() OVER (PARTITION BY item.node_id, item.hour
                                      ORDER BY ABS(item.mt) DESC, item.id) AS place
              FROM item) AS named
     WHERE named.place <= %(named)s
     ORDER BY named.node_id, named.hour, named.place
     LIMIT %(most_named)s
"""

EVENTS_BY_HOUR = EVENTS + PAID + BY_HOUR
EVENTS_UNBALANCED = EVENTS + PAID + UNBALANCED
AMENDMENTS_BY_HOUR = AMENDMENTS + PAID + BY_HOUR
AMENDMENTS_UNBALANCED = AMENDMENTS + PAID + UNBALANCED
AMENDMENTS_NAMED = AMENDMENTS + NAMED

# Repeats leave no row of their own: they are known by the batch they came in, in its hour.
REPEATED = """
    SELECT batch.node_id,
           date_trunc('hour', batch.received_at, 'UTC') AS hour,
           SUM(batch.duplicate)::bigint AS duplicate
      FROM usage_usagebatch AS batch
     WHERE batch.received_at >= %(from)s
       AND batch.received_at < %(until)s
       AND batch.duplicate > 0
       AND batch.kind <> 'replay'
     GROUP BY 1, 2
     ORDER BY 1, 2
"""
