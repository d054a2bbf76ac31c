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

# Accepted events of the period with the hour of their use, what paid for them, and what of it is
# invoiced: the beginning of the two statements below.
PAID_EVENTS = """
    WITH event AS (
        SELECT event.id,
               event.node_id,
               date_trunc('hour', event.occurred_at, 'UTC') AS hour,
               event.input_tokens + event.cached_tokens + event.output_tokens
                   + event.reasoning_tokens AS tokens,
               event.mt
          FROM usage_usageevent AS event
         WHERE event.occurred_at >= %(from)s
           AND event.occurred_at < %(until)s
    ), debit AS (
        SELECT entry.event_id, -SUM(entry.amount_mt) AS mt
          FROM usage_ledgerentry AS entry
          JOIN event ON event.id = entry.event_id
         WHERE entry.kind = 'debit'
         GROUP BY entry.event_id
    ), beyond AS (
        SELECT overage.event_id,
               SUM(overage.mt) FILTER (WHERE overage.priced) AS priced_mt,
               SUM(overage.mt) FILTER (WHERE NOT overage.priced) AS uncovered_mt,
               SUM(overage.mt) FILTER (WHERE invoice.id IS NOT NULL) AS invoiced_mt
          FROM usage_overage AS overage
          LEFT JOIN invoicing_invoiceline AS line ON line.id = overage.invoice_line_id
          LEFT JOIN invoicing_invoice AS invoice
            ON invoice.id = line.invoice_id AND invoice.state = 'final'
         WHERE overage.occurred_at >= %(from)s
           AND overage.occurred_at < %(until)s
         GROUP BY overage.event_id
    )
"""

# The same summed by node and hour.
ACCEPTED_BY_HOUR = """
    SELECT event.node_id,
           event.hour,
           COUNT(*) AS accepted,
           SUM(event.tokens)::bigint AS accepted_tokens,
           SUM(event.mt)::bigint AS accepted_mt,
           COALESCE(SUM(debit.mt), 0)::bigint AS debited_mt,
           COALESCE(SUM(beyond.priced_mt), 0)::bigint AS overage_mt,
           COALESCE(SUM(beyond.uncovered_mt), 0)::bigint AS uncovered_mt,
           COALESCE(SUM(beyond.invoiced_mt), 0)::bigint AS invoiced_mt
      FROM event
      LEFT JOIN debit ON debit.event_id = event.id
      LEFT JOIN beyond ON beyond.event_id = event.id
     GROUP BY 1, 2
     ORDER BY 1, 2
"""

# Events that were not paid for exactly. Must return no row.
UNBALANCED = """
    SELECT event.id AS event,
           event.node_id,
           event.hour,
           event.mt AS expected,
           (COALESCE(debit.mt, 0) + COALESCE(beyond.priced_mt, 0)
               + COALESCE(beyond.uncovered_mt, 0))::bigint AS found
      FROM event
      LEFT JOIN debit ON debit.event_id = event.id
      LEFT JOIN beyond ON beyond.event_id = event.id
     WHERE event.mt <> COALESCE(debit.mt, 0) + COALESCE(beyond.priced_mt, 0)
                       + COALESCE(beyond.uncovered_mt, 0)
     ORDER BY event.id
     LIMIT %(most)s
"""

# Amendments of events of the period, in the node and hour of their event; what paid for one, or was
# given back by it, carries its number, and nothing is recorded long before its event's time. The
# beginning of the three statements below.
AMENDED = """
    WITH amendment AS (
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
    ), moved AS (
        SELECT entry.event_id, -SUM(entry.amount_mt) AS mt
          FROM usage_ledgerentry AS entry
          JOIN amendment ON amendment.id = entry.event_id
         WHERE entry.kind IN ('debit', 'refund')
           AND entry.recorded_at >= %(from)s::timestamptz - interval '1 day'
         GROUP BY entry.event_id
    ), beyond AS (
        SELECT overage.event_id,
               SUM(overage.mt) FILTER (WHERE overage.priced) AS priced_mt,
               SUM(overage.mt) FILTER (WHERE NOT overage.priced) AS uncovered_mt,
               SUM(overage.mt) FILTER (WHERE invoice.id IS NOT NULL) AS invoiced_mt
          FROM usage_overage AS overage
          JOIN amendment ON amendment.id = overage.event_id
          LEFT JOIN invoicing_invoiceline AS line ON line.id = overage.invoice_line_id
          LEFT JOIN invoicing_invoice AS invoice
            ON invoice.id = line.invoice_id AND invoice.state = 'final'
         GROUP BY overage.event_id
    )
"""

# By how much amendments changed what a node reported in an hour and who pays for it.
CORRECTED_BY_HOUR = """
    SELECT amendment.node_id,
           amendment.hour,
           COUNT(*) AS corrections,
           SUM(amendment.tokens)::bigint AS correction_tokens,
           SUM(amendment.mt)::bigint AS correction_accepted_mt,
           COALESCE(SUM(moved.mt), 0)::bigint AS correction_debited_mt,
           COALESCE(SUM(beyond.priced_mt), 0)::bigint AS correction_overage_mt,
           COALESCE(SUM(beyond.uncovered_mt), 0)::bigint AS correction_uncovered_mt,
           COALESCE(SUM(beyond.invoiced_mt), 0)::bigint AS correction_invoiced_mt
      FROM amendment
      LEFT JOIN moved ON moved.event_id = amendment.id
      LEFT JOIN beyond ON beyond.event_id = amendment.id
     GROUP BY 1, 2
     ORDER BY 1, 2
"""

# The amendments themselves, the largest of each node and hour first and no more than some.
CORRECTIONS_NAMED = """
    SELECT named.node_id, named.hour, named.id, named.event_id, named.kind, named.tokens, named.mt
      FROM (SELECT amendment.*,
                   ROW_NUMBER() OVER (PARTITION BY amendment.node_id, amendment.hour
                                      ORDER BY ABS(amendment.mt) DESC, amendment.id) AS place
              FROM amendment) AS named
     WHERE named.place <= %(named)s
     ORDER BY named.node_id, named.hour, named.place
     LIMIT %(most_named)s
"""

# Amendments whose difference nobody paid or got back exactly. Must return no row.
UNBALANCED_CORRECTIONS = """
    SELECT amendment.id AS amendment,
           amendment.event_id AS event,
           amendment.node_id,
           amendment.hour,
           amendment.mt AS expected,
           (COALESCE(moved.mt, 0) + COALESCE(beyond.priced_mt, 0)
               + COALESCE(beyond.uncovered_mt, 0))::bigint AS found
      FROM amendment
      LEFT JOIN moved ON moved.event_id = amendment.id
      LEFT JOIN beyond ON beyond.event_id = amendment.id
     WHERE amendment.mt <> COALESCE(moved.mt, 0) + COALESCE(beyond.priced_mt, 0)
                           + COALESCE(beyond.uncovered_mt, 0)
     ORDER BY amendment.id
     LIMIT %(most)s
"""

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
