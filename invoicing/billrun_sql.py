"""The statements of the bill run, in the order in which a shard runs them."""

# An account with many millions of overage rows needs longer than a request may take; a shard waits
# for another run's shard no longer than that one may take.
SHARD_LIMITS = """
    SELECT set_config('statement_timeout', '15min', true), set_config('lock_timeout', '15min', true)
"""

# Shards of all runs, of any cycle, one after the other; the region's schema is part of the lock.
LOCK_BILLING = """
    SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ':bill_run', 0))
"""

# An account with something to bill and no invoice of this cycle, with the ids of its charges and
# what charges and overage come to, tax included.
ACCOUNTS_TO_BILL = """
    WITH charged AS (
        SELECT charge.account_id,
               SUM(charge.amount_fen) AS fen,
               ARRAY_AGG(charge.id) AS charge_ids
          FROM plans_charge AS charge
          LEFT JOIN invoicing_invoiceline AS line ON line.charge_id = charge.id
         WHERE charge.account_id > %(after)s
           AND charge.account_id <= %(upto)s
           AND charge.cycle <= %(cycle)s
           AND line.id IS NULL
         GROUP BY charge.account_id
    ), priced AS (
        SELECT overage.account_id,
               SIGN(SUM(overage.mt)) * div(
                   2 * ABS(SUM(overage.mt)) * overage.fen_per_million + 1000000000, 2000000000)
                   AS fen
          FROM usage_overage AS overage
         WHERE overage.priced
           AND overage.invoice_line_id IS NULL
           AND overage.account_id > %(after)s
           AND overage.account_id <= %(upto)s
           AND overage.cycle <= %(cycle)s
         GROUP BY overage.account_id, overage.model_id, overage.fen_per_million, overage.cycle
    ), used AS (
        SELECT priced.account_id, SUM(priced.fen) AS fen
          FROM priced
         GROUP BY priced.account_id
    )
    SELECT account.id AS account_id,
           COALESCE(charged.charge_ids, ARRAY[]::bigint[]) AS charge_ids,
           (COALESCE(charged.fen, 0) + COALESCE(used.fen, 0))::bigint AS total_fen
      FROM accounts_account AS account
      LEFT JOIN charged ON charged.account_id = account.id
      LEFT JOIN used ON used.account_id = account.id
     WHERE account.id > %(after)s
       AND account.id <= %(upto)s
       AND (charged.account_id IS NOT NULL OR used.account_id IS NOT NULL)
       AND NOT EXISTS (SELECT 1
                         FROM invoicing_invoice AS invoice
                        WHERE invoice.account_id = account.id
                          AND invoice.cycle = %(cycle)s)
     ORDER BY account.id
"""

# A category that has no VAT rate on the day that counts. Must return no row.
MISSING_RATES = """
    WITH needed AS (
        SELECT DISTINCT charge.tax_category AS category,
               (charge.cycle + INTERVAL '1 month' - INTERVAL '1 day')::date AS day
          FROM plans_charge AS charge
         WHERE charge.id = ANY (%(charges)s)
         UNION
        SELECT DISTINCT %(category)s,
               (overage.cycle + INTERVAL '1 month' - INTERVAL '1 day')::date
          FROM usage_overage AS overage
         WHERE overage.priced
           AND overage.invoice_line_id IS NULL
           AND overage.account_id = ANY (%(accounts)s)
           AND overage.cycle <= %(cycle)s
    )
    SELECT needed.category, needed.day
      FROM needed
     WHERE NOT EXISTS (SELECT 1
                         FROM invoicing_taxrate AS rate
                        WHERE rate.category = needed.category
                          AND rate.valid_from <= needed.day
                          AND (rate.valid_until IS NULL OR rate.valid_until > needed.day))
     ORDER BY needed.category, needed.day
"""

# One draft per account, numbered in the order of account ids; totals follow when it is finalised.
DRAFT_INVOICES = """
    INSERT INTO invoicing_invoice
           (account_id, cycle, state, number, buyer_name, buyer_tax_number, seller_name,
            seller_tax_number, net_fen, vat_fen, gross_fen, prepaid_fen, issued_at, due_at)
    SELECT account.id,
           %(cycle)s,
           'draft',
           %(prefix)s || LPAD(
               (%(first)s - 1 + ROW_NUMBER() OVER (ORDER BY account.id))::text, %(digits)s, '0'),
           account.name,
           account.tax_number,
           %(seller_name)s,
           %(seller_tax_number)s,
           0, 0, 0, 0,
           %(issued_at)s,
           %(due_at)s
      FROM accounts_account AS account
     WHERE account.id = ANY (%(accounts)s)
     ORDER BY account.id
"""

# One line per charge: fees first, then packs and credits, by number and time.
CHARGE_LINES = """
    INSERT INTO invoicing_invoiceline
           (invoice_id, position, kind, charge_id, name, name_en, msisdn, model_code, usage_cycle,
            quantity_mt, fen_per_million, tax_category, rate_bp, net_fen, vat_fen, gross_fen)
    SELECT invoice.id,
           ROW_NUMBER() OVER (
               PARTITION BY invoice.id
               ORDER BY ARRAY_POSITION(ARRAY['fee', 'pack', 'credit'], charge.kind::text),
                        charge.cycle, subscriber.msisdn, charge.id),
           charge.kind,
           charge.id,
           charge.name,
           charge.name_en,
           subscriber.msisdn,
           '',
           charge.cycle,
           NULL,
           NULL,
           charge.tax_category,
           rate.rate_bp,
           tax.net_fen,
           charge.amount_fen - tax.net_fen,
           charge.amount_fen
      FROM plans_charge AS charge
      JOIN invoicing_invoice AS invoice
        ON invoice.account_id = charge.account_id AND invoice.cycle = %(cycle)s
      JOIN accounts_subscriber AS subscriber ON subscriber.id = charge.subscriber_id
      JOIN invoicing_taxrate AS rate
        ON rate.category = charge.tax_category
       AND rate.valid_from < charge.cycle + INTERVAL '1 month'
       AND (rate.valid_until IS NULL OR rate.valid_until >= charge.cycle + INTERVAL '1 month')
     CROSS JOIN LATERAL (
           SELECT SIGN(charge.amount_fen)::bigint
                  * ((2 * ABS(charge.amount_fen) * 10000 + 10000 + rate.rate_bp)
                     / (2 * (10000 + rate.rate_bp))) AS net_fen) AS tax
     WHERE charge.id = ANY (%(charges)s)
"""

# Marks the unbilled priced overage of the accounts with the id of its coming line and writes the
# lines from what was marked: one statement, so an event that arrives meanwhile is in both or none.
# What corrections took back of an earlier invoice comes as a line below zero: a credit.
OVERAGE_LINES = """
    WITH grouped AS MATERIALIZED (
        SELECT kind.account_id,
               kind.model_id,
               kind.fen_per_million,
               kind.cycle,
               NEXTVAL(PG_GET_SERIAL_SEQUENCE('invoicing_invoiceline', 'id')) AS line_id
          FROM (SELECT DISTINCT
                       overage.account_id,
                       overage.model_id,
                       overage.fen_per_million,
                       overage.cycle
                  FROM usage_overage AS overage
                 WHERE overage.priced
                   AND overage.invoice_line_id IS NULL
                   AND overage.account_id = ANY (%(accounts)s)
                   AND overage.cycle <= %(cycle)s) AS kind
    ), marked AS (
        UPDATE usage_overage AS overage
           SET invoice_line_id = grouped.line_id
          FROM grouped
         WHERE overage.account_id = grouped.account_id
           AND overage.model_id = grouped.model_id
           AND overage.fen_per_million = grouped.fen_per_million
           AND overage.cycle = grouped.cycle
           AND overage.priced
           AND overage.invoice_line_id IS NULL
        RETURNING overage.invoice_line_id AS line_id, overage.mt
    ), summed AS (
        SELECT marked.line_id, SUM(marked.mt) AS mt
          FROM marked
         GROUP BY marked.line_id
    )
    INSERT INTO invoicing_invoiceline
           (id, invoice_id, position, kind, charge_id, name, name_en, msisdn, model_code,
            usage_cycle, quantity_mt, fen_per_million, tax_category, rate_bp, net_fen, vat_fen,
            gross_fen)
    SELECT summed.line_id,
           invoice.id,
           (SELECT COUNT(*)
              FROM invoicing_invoiceline AS earlier
             WHERE earlier.invoice_id = invoice.id)
           + ROW_NUMBER() OVER (
               PARTITION BY invoice.id
               ORDER BY grouped.cycle, model.code, grouped.fen_per_million),
           'overage',
           NULL,
           LEFT(CASE WHEN summed.mt < 0 THEN '超出用量更正 ' ELSE '超出用量 ' END
                || COALESCE(model.name, grouped.model_id::text), 100),
           LEFT(CASE WHEN summed.mt < 0 THEN 'Correction of usage beyond packages, '
                     ELSE 'Usage beyond packages, ' END
                || COALESCE(model.name, grouped.model_id::text), 100),
           '',
           COALESCE(model.code, grouped.model_id::text),
           grouped.cycle,
           summed.mt,
           grouped.fen_per_million,
           %(category)s,
           rate.rate_bp,
           tax.net_fen,
           price.gross_fen - tax.net_fen,
           price.gross_fen
      FROM summed
      JOIN grouped ON grouped.line_id = summed.line_id
      JOIN invoicing_invoice AS invoice
        ON invoice.account_id = grouped.account_id AND invoice.cycle = %(cycle)s
      LEFT JOIN usage_inferencemodel AS model ON model.id = grouped.model_id
      LEFT JOIN invoicing_taxrate AS rate
        ON rate.category = %(category)s
       AND rate.valid_from < grouped.cycle + INTERVAL '1 month'
       AND (rate.valid_until IS NULL OR rate.valid_until >= grouped.cycle + INTERVAL '1 month')
     CROSS JOIN LATERAL (
           SELECT (SIGN(summed.mt) * div(
                      2 * ABS(summed.mt) * grouped.fen_per_million + 1000000000, 2000000000)
                  )::bigint AS gross_fen) AS price
     CROSS JOIN LATERAL (
           SELECT SIGN(price.gross_fen)::bigint
                  * ((2 * ABS(price.gross_fen) * 10000 + 10000 + rate.rate_bp)
                     / (2 * (10000 + rate.rate_bp))) AS net_fen) AS tax
"""

# Totals from the lines, what was paid before from the orders' payments, and the freeze.
FINALISE = """
    WITH summed AS (
        SELECT line.invoice_id,
               SUM(line.net_fen) AS net_fen,
               SUM(line.vat_fen) AS vat_fen,
               SUM(line.gross_fen) AS gross_fen
          FROM invoicing_invoiceline AS line
          JOIN invoicing_invoice AS invoice ON invoice.id = line.invoice_id
         WHERE invoice.account_id = ANY (%(accounts)s)
           AND invoice.cycle = %(cycle)s
         GROUP BY line.invoice_id
    ), paid AS (
        SELECT line.invoice_id, SUM(payment.amount_fen) AS fen
          FROM invoicing_invoiceline AS line
          JOIN plans_charge AS charge ON charge.id = line.charge_id
          JOIN invoicing_payment AS payment
            ON payment.order_id = charge.order_id AND payment.state = 'succeeded'
         WHERE charge.id = ANY (%(charges)s)
         GROUP BY line.invoice_id
    ), finalised AS (
        UPDATE invoicing_invoice AS invoice
           SET state = 'final',
               net_fen = summed.net_fen,
               vat_fen = summed.vat_fen,
               gross_fen = summed.gross_fen,
               prepaid_fen = COALESCE(paid.fen, 0)
          FROM summed
          LEFT JOIN paid ON paid.invoice_id = summed.invoice_id
         WHERE invoice.id = summed.invoice_id
           AND invoice.state = 'draft'
        RETURNING invoice.net_fen, invoice.vat_fen, invoice.gross_fen
    )
    SELECT COUNT(*) AS invoices,
           COALESCE(SUM(finalised.net_fen), 0)::bigint AS net_fen,
           COALESCE(SUM(finalised.vat_fen), 0)::bigint AS vat_fen,
           COALESCE(SUM(finalised.gross_fen), 0)::bigint AS gross_fen
      FROM finalised
"""
