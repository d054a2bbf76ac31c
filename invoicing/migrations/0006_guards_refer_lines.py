"""The guards of invoices and lines also hold the reference between the two.

Looking at the invoice of every line anyway, they leave nothing for the foreign key to find: a line
needs an invoice that is there, an invoice with lines stays and keeps its id. The key alone took a
tenth of a bill run: one query and one row lock for each line at commit.
"""

import django.db.models.deletion
from django.db import migrations, models

INVOICE_OF_LINES = """
    CREATE FUNCTION invoicing_guard_reference() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- The row is locked here already, so a line that was being added is there or never will be.
        IF EXISTS (SELECT 1 FROM invoicing_invoiceline AS line WHERE line.invoice_id = OLD.id) THEN
            RAISE EXCEPTION 'invoicing_invoice: % has lines; remove them first', OLD.number
                USING ERRCODE = 'foreign_key_violation';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$;
    CREATE TRIGGER invoice_of_lines_stays BEFORE DELETE ON invoicing_invoice
        FOR EACH ROW EXECUTE FUNCTION invoicing_guard_reference();
    CREATE TRIGGER invoice_of_lines_keeps_its_id BEFORE UPDATE ON invoicing_invoice
        FOR EACH ROW WHEN (NEW.id <> OLD.id) EXECUTE FUNCTION invoicing_guard_reference();

    CREATE FUNCTION invoicing_guard_moved_line() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- invoice_line_is_frozen has locked both invoices, if they are there.
        IF NOT EXISTS (SELECT 1 FROM invoicing_invoice AS invoice
                        WHERE invoice.id = NEW.invoice_id) THEN
            RAISE EXCEPTION 'invoicing_invoiceline: there is no invoice %', NEW.invoice_id
                USING ERRCODE = 'foreign_key_violation';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER invoice_line_keeps_an_invoice BEFORE UPDATE ON invoicing_invoiceline
        FOR EACH ROW WHEN (NEW.invoice_id <> OLD.invoice_id)
        EXECUTE FUNCTION invoicing_guard_moved_line();
"""

KEY_ALONE = """
    DROP TRIGGER invoice_line_keeps_an_invoice ON invoicing_invoiceline;
    DROP FUNCTION invoicing_guard_moved_line();
    DROP TRIGGER invoice_of_lines_keeps_its_id ON invoicing_invoice;
    DROP TRIGGER invoice_of_lines_stays ON invoicing_invoice;
    DROP FUNCTION invoicing_guard_reference();
"""


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0005_fewer_invoice_indexes")]

    operations = [
        migrations.RunSQL(INVOICE_OF_LINES, KEY_ALONE),
        migrations.AlterField(
            model_name="invoiceline",
            name="invoice",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="lines",
                to="invoicing.invoice",
            ),
        ),
    ]
