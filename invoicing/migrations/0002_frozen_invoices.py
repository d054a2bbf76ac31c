"""What the database itself refuses: a finalised invoice that changes, or one that does not add up."""

from django.db import migrations

FREEZE = """
    CREATE FUNCTION invoicing_guard_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        lines record;
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NEW.state <> 'draft' THEN
                RAISE EXCEPTION 'invoicing_invoice: an invoice starts as a draft'
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END IF;
        IF OLD.state = 'final' THEN
            RAISE EXCEPTION 'invoicing_invoice: % is finalised; correct it by a further document',
                OLD.number USING ERRCODE = 'restrict_violation';
        END IF;
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        IF NEW.state = 'final' THEN
            SELECT COUNT(*) AS number,
                   COALESCE(SUM(line.net_fen), 0) AS net_fen,
                   COALESCE(SUM(line.vat_fen), 0) AS vat_fen,
                   COALESCE(SUM(line.gross_fen), 0) AS gross_fen
              INTO lines
              FROM invoicing_invoiceline AS line
             WHERE line.invoice_id = NEW.id;
            IF lines.number = 0 OR lines.net_fen <> NEW.net_fen OR lines.vat_fen <> NEW.vat_fen
               OR lines.gross_fen <> NEW.gross_fen THEN
                RAISE EXCEPTION 'invoicing_invoice: % is not the sum of its lines', NEW.number
                    USING ERRCODE = 'restrict_violation';
            END IF;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER invoice_is_frozen BEFORE INSERT OR UPDATE OR DELETE ON invoicing_invoice
        FOR EACH ROW EXECUTE FUNCTION invoicing_guard_invoice();

    CREATE FUNCTION invoicing_guard_line() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        touched bigint[];
    BEGIN
        touched := CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW.invoice_id]
                              WHEN 'DELETE' THEN ARRAY[OLD.invoice_id]
                              ELSE ARRAY[OLD.invoice_id, NEW.invoice_id] END;
        -- The lock waits for a writer who is finalising the invoice at this moment.
        PERFORM 1 FROM invoicing_invoice AS invoice WHERE invoice.id = ANY (touched) FOR SHARE;
        IF EXISTS (SELECT 1 FROM invoicing_invoice AS invoice
                    WHERE invoice.id = ANY (touched) AND invoice.state = 'final') THEN
            RAISE EXCEPTION 'invoicing_invoiceline: the invoice is finalised; its lines are frozen'
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$;
    CREATE TRIGGER invoice_line_is_frozen BEFORE INSERT OR UPDATE OR DELETE
        ON invoicing_invoiceline FOR EACH ROW EXECUTE FUNCTION invoicing_guard_line();
"""

THAW = """
    DROP TRIGGER invoice_line_is_frozen ON invoicing_invoiceline;
    DROP FUNCTION invoicing_guard_line();
    DROP TRIGGER invoice_is_frozen ON invoicing_invoice;
    DROP FUNCTION invoicing_guard_invoice();
"""


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0001_initial"), ("usage", "0003_rules")]

    operations = [migrations.RunSQL(FREEZE, THAW)]
