"""The statements of the bill run, in the order in which a shard runs them."""

# The last account of the next shard, null when there is none.
SHARD_END = """
    SELECT MAX(account.id) AS upto
      FROM (SELECT id
              FROM accounts_account
             WHERE id > %(after)s
             ORDER BY id
             LIMIT %(shard)s) AS account
"""

# An account with many millions of overage rows needs longer than a request may take; a shard waits
# for another run's shard no longer than that one may take. Its lines, some 500 bytes each, are held
# twice and sorted: in memory, unless there are more than a hundred thousand.
SHARD_LIMITS = """
    SELECT set_config('statement_timeout', '15min', true),
           set_config('lock_timeout', '15min', true),
           set_config('work_mem', '64MB', true)
"""

# A session keeps the plans of reference checks and triggers. Those that it made while the tables
# were small would scan them for every row; making them anew costs a few milliseconds.
FORGET_PLANS = "DISCARD PLANS"

# Shards of all runs, of any cycle, one after the other; the region's schema is part of the lock.
LOCK_BILLING = """
    SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ':bill_run', 0))
"""

# Whether nobody issues invoices right now; the lock taken to see that goes back at once.
BILLING_RESTS = """
    SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || ':bill_run', 0)) AS rests
"""

# Where new ids come from: overage is told the id of its line before that is written.
NEW_IDS = """
    SELECT PG_GET_SERIAL_SEQUENCE('invoicing_invoice', 'id') AS invoice_ids,
           PG_GET_SERIAL_SEQUENCE('invoicing_invoiceline', 'id') AS line_ids
"""

# The shard's invoices with all their lines, in one statement with one snapshot: an item that comes
# meanwhile is wholly on an invoice or waits. While a cycle is being billed, what the statistics say
# of it is wrong; so nothing depends on them: it joins stored tables by their keys, never two steps
# with each other; what belongs to one account meets in windows; and whether there is an invoice of
# the cycle is a subquery, which is always a probe by index, and not an anti-join. Its steps:
#
# metered   unbilled priced overage by account, model, price and month; each becomes a line. What
#           corrections took back of an earlier invoice comes as a line below zero: a credit
# item      unbilled charges and that overage as lines, of accounts without an invoice of the cycle
# taxed     with the VAT rate of the last day of the month it is owed for, null if it is missing
# summed    with the totals of its account, and its place: fees, packs, credits, then overage
# bill      the lines of accounts that owe zero or more, with their ids
# invoiced  the invoices, numbered in the order of account ids
#
# The answer counts what invoiced, written and marked did; `owed` and `used` are what the last two
# had to do; `missing` names the categories without a rate.
BILL_SHARD = """
    WITH metered AS (
        SELECT overage.account_id,
               overage.model_id,
               overage.fen_per_million,
               overage.cycle,
               SUM(overage.mt) AS mt,
               ARRAY_AGG(overage.id) AS overage_ids
          FROM usage_overage AS overage
         WHERE overage.priced
           AND overage.invoice_line_id IS NULL
           AND overage.account_id > %(after)s
           AND overage.account_id <= %(upto)s
           AND overage.cycle <= %(cycle)s
         GROUP BY overage.account_id, overage.model_id, overage.fen_per_million, overage.cycle
    ), item AS (
        SELECT charge.account_id,
               charge.kind,
               charge.id AS charge_id,
               CASE WHEN charge.order_id IS NOT NULL THEN (
                   SELECT SUM(payment.amount_fen)
                     FROM invoicing_payment AS payment
                    WHERE payment.order_id = charge.order_id
                      AND payment.state = 'succeeded') END AS paid_fen,
               charge.name,
               charge.name_en,
               subscriber.msisdn,
               '' AS model_code,
               charge.cycle,
               NULL::bigint AS quantity_mt,
               NULL::bigint AS fen_per_million,
               charge.tax_category,
               charge.amount_fen AS gross_fen,
               NULL::bigint[] AS overage_ids
          FROM plans_charge AS charge
          JOIN accounts_subscriber AS subscriber ON subscriber.id = charge.subscriber_id
         WHERE charge.account_id > %(after)s
           AND charge.account_id <= %(upto)s
           AND charge.cycle <= %(cycle)s
           AND NOT EXISTS (SELECT 1
                             FROM invoicing_invoiceline AS line
                            WHERE line.charge_id = charge.id)
         UNION ALL
        SELECT metered.account_id,
               'overage',
               NULL,
               NULL,
               LEFT(CASE WHEN metered.mt < 0 THEN '超出用量更正 ' ELSE '超出用量 ' END
                    || COALESCE(model.name, metered.model_id::text), 100),
               LEFT(CASE WHEN metered.mt < 0 THEN 'Correction of usage beyond packages, '
                         ELSE 'Usage beyond packages, ' END
                    || COALESCE(model.name, metered.model_id::text), 100),
               '',
               COALESCE(model.code, metered.model_id::text),
               metered.cycle,
               metered.mt,
               metered.fen_per_million,
               %(category)s,
               (SIGN(metered.mt) * div(
                   2 * ABS(metered.mt) * metered.fen_per_million + 1000000000, 2000000000))::bigint,
               metered.overage_ids
          FROM metered
          LEFT JOIN usage_inferencemodel AS model ON model.id = metered.model_id
    ), taxed AS (
        SELECT item.*,
               account.name AS buyer_name,
               account.tax_number AS buyer_tax_number,
               rate.rate_bp,
               CASE WHEN item.gross_fen < 0 THEN -1 ELSE 1 END
               * ((2 * ABS(item.gross_fen) * 10000 + 10000 + rate.rate_bp)
                  / (2 * (10000 + rate.rate_bp))) AS net_fen
          FROM item
          JOIN accounts_account AS account ON account.id = item.account_id
          LEFT JOIN invoicing_taxrate AS rate
            ON rate.category = item.tax_category
           AND rate.valid_from < item.cycle + INTERVAL '1 month'
           AND (rate.valid_until IS NULL OR rate.valid_until >= item.cycle + INTERVAL '1 month')
         WHERE (SELECT invoice.id
                  FROM invoicing_invoice AS invoice
                 WHERE invoice.account_id = item.account_id
                   AND invoice.cycle = %(cycle)s) IS NULL
    ), summed AS MATERIALIZED (
        SELECT taxed.*,
               SUM(taxed.net_fen) OVER owner AS all_net_fen,
               SUM(taxed.gross_fen) OVER owner AS all_gross_fen,
               SUM(taxed.paid_fen) OVER owner AS all_paid_fen,
               BOOL_AND(taxed.rate_bp IS NOT NULL) OVER owner AS rated,
               ROW_NUMBER() OVER (
                   PARTITION BY taxed.account_id
                   ORDER BY ARRAY_POSITION(
                                ARRAY['fee', 'pack', 'credit', 'overage'], taxed.kind::text),
                            taxed.cycle, taxed.msisdn, taxed.model_code, taxed.fen_per_million,
                            taxed.charge_id) AS position
          FROM taxed
        WINDOW owner AS (PARTITION BY taxed.account_id)
    ), bill AS MATERIALIZED (
        SELECT drawn.*,
               MAX(drawn.new_id) OVER (PARTITION BY drawn.account_id) AS invoice_id
          FROM (SELECT summed.*,
                       NEXTVAL(%(line_ids)s) AS line_id,
                       CASE WHEN summed.position = 1 THEN NEXTVAL(%(invoice_ids)s) END AS new_id
                  FROM summed
                 WHERE summed.all_gross_fen >= 0 AND summed.rated) AS drawn
    ), invoiced AS (
        INSERT INTO invoicing_invoice
               (id, account_id, cycle, state, number, buyer_name, buyer_tax_number, seller_name,
                seller_tax_number, net_fen, vat_fen, gross_fen, prepaid_fen, issued_at, due_at)
        SELECT bill.invoice_id,
               bill.account_id,
               %(cycle)s,
               'final',
               %(prefix)s || LPAD(
                   (%(first)s - 1 + ROW_NUMBER() OVER (ORDER BY bill.account_id))::text,
                   %(digits)s, '0'),
               bill.buyer_name,
               bill.buyer_tax_number,
               %(seller_name)s,
               %(seller_tax_number)s,
               bill.all_net_fen,
               bill.all_gross_fen - bill.all_net_fen,
               bill.all_gross_fen,
               COALESCE(bill.all_paid_fen, 0),
               %(issued_at)s,
               %(due_at)s
          FROM bill
         WHERE bill.position = 1
        RETURNING net_fen, vat_fen, gross_fen
    ), written AS (
        INSERT INTO invoicing_invoiceline
               (id, invoice_id, position, kind, charge_id, name, name_en, msisdn, model_code,
                usage_cycle, quantity_mt, fen_per_million, tax_category, rate_bp, net_fen, vat_fen,
                gross_fen)
        SELECT bill.line_id,
               bill.invoice_id,
               bill.position,
               bill.kind,
               bill.charge_id,
               bill.name,
               bill.name_en,
               bill.msisdn,
               bill.model_code,
               bill.cycle,
               bill.quantity_mt,
               bill.fen_per_million,
               bill.tax_category,
               bill.rate_bp,
               bill.net_fen,
               bill.gross_fen - bill.net_fen,
               bill.gross_fen
          FROM bill
        RETURNING 1
    ), marked AS (
        UPDATE usage_overage AS overage
           SET invoice_line_id = used.line_id
          FROM (SELECT bill.line_id, UNNEST(bill.overage_ids) AS overage_id
                  FROM bill
                 WHERE bill.kind = 'overage') AS used
         WHERE overage.id = used.overage_id
           AND overage.invoice_line_id IS NULL
        RETURNING 1
    )
    SELECT COUNT(*) AS invoices,
           COALESCE(SUM(invoiced.net_fen), 0)::bigint AS net_fen,
           COALESCE(SUM(invoiced.vat_fen), 0)::bigint AS vat_fen,
           COALESCE(SUM(invoiced.gross_fen), 0)::bigint AS gross_fen,
           (SELECT COUNT(*)
              FROM summed
             WHERE summed.position = 1 AND summed.all_gross_fen < 0) AS carried,
           (SELECT COUNT(*) FROM bill) AS owed,
           (SELECT COUNT(*) FROM written) AS written,
           (SELECT COALESCE(SUM(CARDINALITY(bill.overage_ids)), 0) FROM bill) AS used,
           (SELECT COUNT(*) FROM marked) AS marked,
           ARRAY(SELECT DISTINCT
                        summed.tax_category || ' on '
                        || (summed.cycle + INTERVAL '1 month' - INTERVAL '1 day')::date
                   FROM summed
                  WHERE summed.rate_bp IS NULL
                    AND summed.all_gross_fen >= 0
                  ORDER BY 1) AS missing
      FROM invoiced
"""
