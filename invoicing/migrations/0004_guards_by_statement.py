"""Whole invoices in one statement: what is inserted is checked once a statement, not row by row.

A draft still becomes final by an update. Besides, an invoice may be born final, if one statement
writes it together with all its lines. A trigger for each row cost more than the rows themselves.

plpgsql keeps a plan for the session, and one that was made while the tables were small must not
scan them later. So the functions are written (LATERAL with an aggregate, a lock or a limit, which is
planned alone) and set to probe by index, which is right for one line and for a million.
"""

from django.db import migrations

BY_STATEMENT = """
    DROP TRIGGER invoice_is_frozen ON invoicing_invoice;
    CREATE TRIGGER invoice_is_frozen BEFORE UPDATE OR DELETE ON invoicing_invoice
        FOR EACH ROW EXECUTE FUNCTION invoicing_guard_invoice();

    CREATE FUNCTION invoicing_guard_new_invoices() RETURNS trigger LANGUAGE plpgsql
        SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    DECLARE
        wrong text;
    BEGIN
        SELECT invoice.number
          INTO wrong
          FROM born AS invoice
         CROSS JOIN LATERAL (
               SELECT COUNT(*) AS number,
                      SUM(line.net_fen) AS net_fen,
                      SUM(line.vat_fen) AS vat_fen,
                      SUM(line.gross_fen) AS gross_fen
                 FROM invoicing_invoiceline AS line
                WHERE line.invoice_id = invoice.id) AS lines
         WHERE invoice.state <> 'draft'
           AND (lines.number = 0 OR lines.net_fen <> invoice.net_fen
                OR lines.vat_fen <> invoice.vat_fen OR lines.gross_fen <> invoice.gross_fen)
         LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'invoicing_invoice: % is born finalised and is not the sum of its lines; '
                'start with a draft, or write all its lines in the same statement', wrong
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER invoice_is_born_whole AFTER INSERT ON invoicing_invoice
        REFERENCING NEW TABLE AS born
        FOR EACH STATEMENT EXECUTE FUNCTION invoicing_guard_new_invoices();

    DROP TRIGGER invoice_line_is_frozen ON invoicing_invoiceline;
    CREATE TRIGGER invoice_line_is_frozen BEFORE UPDATE OR DELETE ON invoicing_invoiceline
        FOR EACH ROW EXECUTE FUNCTION invoicing_guard_line();

    CREATE FUNCTION invoicing_guard_new_lines() RETURNS trigger LANGUAGE plpgsql
        SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    DECLARE
        found record;
    BEGIN
        FOR look IN 1..2 LOOP
            -- A final invoice has lines. So if all its lines are of this statement, it is too. One
            -- that is not seen would be another writer's, whose totals do not know of these lines.
            SELECT COUNT(*) FILTER (WHERE invoice.state = 'draft') AS drafts,
                   MIN(touched.invoice_id) FILTER (WHERE invoice.state IS NULL) AS absent,
                   MIN(touched.invoice_id) FILTER (
                       WHERE invoice.state <> 'draft'
                         AND touched.number <> (SELECT COUNT(*)
                                                  FROM invoicing_invoiceline AS line
                                                 WHERE line.invoice_id = touched.invoice_id)
                   ) AS frozen
              INTO found
              FROM (SELECT line.invoice_id, COUNT(*) AS number
                      FROM added AS line
                     GROUP BY line.invoice_id) AS touched
              LEFT JOIN LATERAL (
                   SELECT invoice.state
                     FROM invoicing_invoice AS invoice
                    WHERE invoice.id = touched.invoice_id
                    LIMIT 1) AS invoice ON true;
            IF found.absent IS NOT NULL THEN
                RAISE EXCEPTION 'invoicing_invoiceline: there is no invoice % yet', found.absent
                    USING ERRCODE = 'foreign_key_violation';
            END IF;
            IF found.frozen IS NOT NULL THEN
                RAISE EXCEPTION
                    'invoicing_invoiceline: the invoice is finalised; its lines are frozen'
                    USING ERRCODE = 'restrict_violation';
            END IF;
            EXIT WHEN look = 2 OR found.drafts = 0;
            -- The lock waits for a writer who is finalising a draft at this moment; the second
            -- look sees what that writer committed.
            PERFORM 1
               FROM (SELECT DISTINCT line.invoice_id FROM added AS line) AS touched
              CROSS JOIN LATERAL (
                    SELECT 1
                      FROM invoicing_invoice AS invoice
                     WHERE invoice.id = touched.invoice_id
                       AND invoice.state = 'draft'
                       FOR SHARE) AS draft;
        END LOOP;
        RETURN NULL;
    END $$;
    CREATE TRIGGER invoice_line_is_added_in_time AFTER INSERT ON invoicing_invoiceline
        REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION invoicing_guard_new_lines();
"""

BY_ROW = """
    DROP TRIGGER invoice_line_is_added_in_time ON invoicing_invoiceline;
    DROP FUNCTION invoicing_guard_new_lines();
    DROP TRIGGER invoice_line_is_frozen ON invoicing_invoiceline;
    CREATE TRIGGER invoice_line_is_frozen BEFORE INSERT OR UPDATE OR DELETE
        ON invoicing_invoiceline FOR EACH ROW EXECUTE FUNCTION invoicing_guard_line();
    DROP TRIGGER invoice_is_born_whole ON invoicing_invoice;
    DROP FUNCTION invoicing_guard_new_invoices();
    DROP TRIGGER invoice_is_frozen ON invoicing_invoice;
    CREATE TRIGGER invoice_is_frozen BEFORE INSERT OR UPDATE OR DELETE ON invoicing_invoice
        FOR EACH ROW EXECUTE FUNCTION invoicing_guard_invoice();
"""


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0003_overage_billed_once")]

    operations = [migrations.RunSQL(BY_STATEMENT, BY_ROW)]
