"""The statements of the proof. The period is days [start, end) and instants [from, until).

Those that look for differences return one row for each: its place and both sides.
"""

# Priced overage of the period in millitokens, and of it what finalised invoices bill or do not.
OVERAGE_FOUND = """
    SELECT COALESCE(SUM(overage.mt), 0)::bigint AS priced_mt,
           COALESCE(SUM(overage.mt) FILTER (WHERE invoice.id IS NOT NULL), 0)::bigint
               AS invoiced_mt,
           COALESCE(SUM(overage.mt) FILTER (WHERE overage.invoice_line_id IS NULL), 0)::bigint
               AS not_invoiced_mt
      FROM usage_overage AS overage
      LEFT JOIN invoicing_invoiceline AS line ON line.id = overage.invoice_line_id
      LEFT JOIN invoicing_invoice AS invoice
        ON invoice.id = line.invoice_id AND invoice.state = 'final'
     WHERE overage.priced
       AND overage.occurred_at >= %(from)s
       AND overage.occurred_at < %(until)s
"""

# Charges of the cycles that begin in the period, billed or not, and those cycles' invoices.
CHARGED = """
    WITH charged AS (
        SELECT COALESCE(SUM(charge.amount_fen), 0)::bigint AS charged_fen,
               COALESCE(SUM(line.gross_fen), 0)::bigint AS invoiced_fen,
               COALESCE(SUM(charge.amount_fen) FILTER (WHERE line.id IS NULL), 0)::bigint
                   AS not_invoiced_fen
          FROM plans_charge AS charge
          LEFT JOIN invoicing_invoiceline AS line ON line.charge_id = charge.id
         WHERE charge.cycle >= %(start)s
           AND charge.cycle < %(end)s
    ), invoiced AS (
        SELECT COUNT(*) AS invoices,
               COALESCE(SUM(invoice.net_fen), 0)::bigint AS net_fen,
               COALESCE(SUM(invoice.vat_fen), 0)::bigint AS vat_fen,
               COALESCE(SUM(invoice.gross_fen), 0)::bigint AS gross_fen
          FROM invoicing_invoice AS invoice
         WHERE invoice.state = 'final'
           AND invoice.cycle >= %(start)s
           AND invoice.cycle < %(end)s
    )
    SELECT charged.charged_fen,
           charged.invoiced_fen,
           charged.not_invoiced_fen,
           invoiced.invoices,
           invoiced.net_fen,
           invoiced.vat_fen,
           invoiced.gross_fen
      FROM charged
     CROSS JOIN invoiced
"""

# Priced overage of the cycles that begin in the period, each group priced as one invoice line.
PRICED_OVERAGE = """
    WITH grouped AS (
        SELECT overage.invoice_line_id,
               SIGN(SUM(overage.mt)) * div(
                   2 * ABS(SUM(overage.mt)) * overage.fen_per_million + 1000000000, 2000000000)
                   AS fen
          FROM usage_overage AS overage
         WHERE overage.priced
           AND overage.cycle >= %(start)s
           AND overage.cycle < %(end)s
         GROUP BY overage.account_id, overage.model_id, overage.fen_per_million, overage.cycle,
                  overage.invoice_line_id
    )
    SELECT COALESCE(SUM(grouped.fen), 0)::bigint AS priced_fen,
           COALESCE(SUM(line.gross_fen), 0)::bigint AS invoiced_fen,
           COALESCE(SUM(grouped.fen) FILTER (WHERE grouped.invoice_line_id IS NULL), 0)::bigint
               AS not_invoiced_fen
      FROM grouped
      LEFT JOIN invoicing_invoiceline AS line ON line.id = grouped.invoice_line_id
"""

BILLED_WITHOUT_LINE = """
    SELECT 'overage of event ' || overage.event_id AS place,
           overage.invoice_line_id AS expected,
           0 AS found
      FROM usage_overage AS overage
      LEFT JOIN invoicing_invoiceline AS line
        ON line.id = overage.invoice_line_id AND line.kind = 'overage'
      LEFT JOIN invoicing_invoice AS invoice
        ON invoice.id = line.invoice_id
       AND invoice.state = 'final'
       AND invoice.account_id = overage.account_id
     WHERE overage.invoice_line_id IS NOT NULL
       AND overage.occurred_at >= %(from)s
       AND overage.occurred_at < %(until)s
       AND invoice.id IS NULL
     ORDER BY overage.event_id
     LIMIT %(most)s
"""

OVERAGE_LINES_THAT_DIFFER = """
    SELECT 'invoice line ' || line.id AS place,
           line.quantity_mt AS expected,
           COALESCE(SUM(overage.mt), 0) AS found
      FROM invoicing_invoiceline AS line
      LEFT JOIN usage_overage AS overage ON overage.invoice_line_id = line.id
     WHERE line.kind = 'overage'
       AND line.usage_cycle >= %(start)s
       AND line.usage_cycle < %(end)s
     GROUP BY line.id
    HAVING line.quantity_mt <> COALESCE(SUM(overage.mt), 0)
     ORDER BY line.id
     LIMIT %(most)s
"""

LINES_THAT_DIFFER = """
    WITH priced AS (
        SELECT line.id,
               line.gross_fen,
               line.net_fen,
               line.rate_bp,
               CASE WHEN line.kind = 'overage'
                    THEN SIGN(line.quantity_mt::numeric) * div(
                        2 * ABS(line.quantity_mt::numeric) * line.fen_per_million + 1000000000,
                        2000000000)
                    ELSE charge.amount_fen END AS fen
          FROM invoicing_invoiceline AS line
          LEFT JOIN plans_charge AS charge ON charge.id = line.charge_id
         WHERE line.usage_cycle >= %(start)s
           AND line.usage_cycle < %(end)s
    )
    SELECT 'invoice line ' || priced.id AS place,
           priced.fen AS expected,
           priced.gross_fen AS found
      FROM priced
     WHERE priced.gross_fen <> priced.fen
        OR ABS(2 * (priced.net_fen * (10000 + priced.rate_bp) - priced.gross_fen * 10000))
           > 10000 + priced.rate_bp
     ORDER BY priced.id
     LIMIT %(most)s
"""

INVOICES_THAT_DIFFER = """
    SELECT 'invoice ' || invoice.number AS place,
           invoice.gross_fen AS expected,
           COALESCE(SUM(line.gross_fen), 0) AS found
      FROM invoicing_invoice AS invoice
      LEFT JOIN invoicing_invoiceline AS line ON line.invoice_id = invoice.id
     WHERE invoice.cycle >= %(start)s
       AND invoice.cycle < %(end)s
     GROUP BY invoice.id
    HAVING invoice.gross_fen <> COALESCE(SUM(line.gross_fen), 0)
        OR invoice.net_fen <> COALESCE(SUM(line.net_fen), 0)
        OR invoice.vat_fen <> COALESCE(SUM(line.vat_fen), 0)
     ORDER BY invoice.id
     LIMIT %(most)s
"""

# A series must have used each number from 1 to its last one exactly once (the number is unique).
GAPS_IN_NUMBERS = """
    SELECT 'series ' || series.prefix AS place,
           series.last_number AS expected,
           COUNT(invoice.id) AS found
      FROM (SELECT LPAD((year %% 100)::text, 2, '0') || LPAD(region::text, 2, '0') || channel::text
                       AS prefix,
                   last_number
              FROM invoicing_invoiceseries) AS series
      LEFT JOIN invoicing_invoice AS invoice
        ON invoice.number > series.prefix || REPEAT('0', 15)
       AND invoice.number <= series.prefix || LPAD(series.last_number::text, 15, '0')
     GROUP BY series.prefix, series.last_number
    HAVING COUNT(invoice.id) <> series.last_number
     ORDER BY series.prefix
     LIMIT %(most)s
"""

OVERPAID = """
    SELECT 'invoice ' || invoice.number AS place,
           invoice.gross_fen AS expected,
           invoice.prepaid_fen + SUM(payment.amount_fen) AS found
      FROM invoicing_invoice AS invoice
      JOIN invoicing_payment AS payment
        ON payment.invoice_id = invoice.id AND payment.state = 'succeeded'
     WHERE invoice.cycle >= %(start)s
       AND invoice.cycle < %(end)s
     GROUP BY invoice.id
    HAVING invoice.prepaid_fen + SUM(payment.amount_fen) > invoice.gross_fen
     ORDER BY invoice.id
     LIMIT %(most)s
"""
