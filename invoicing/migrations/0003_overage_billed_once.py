"""The database refuses to bill overage again, or to take it off the line that bills it."""

from django.db import migrations

BILLED_ONCE = """
    CREATE TRIGGER overage_is_billed_once BEFORE UPDATE OF invoice_line_id ON usage_overage
        FOR EACH ROW WHEN (OLD.invoice_line_id IS NOT NULL
                           AND NEW.invoice_line_id IS DISTINCT FROM OLD.invoice_line_id)
        EXECUTE FUNCTION usage_refuse('an invoice line bills it already')
"""


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0002_frozen_invoices"), ("usage", "0006_overage_facts")]

    operations = [
        migrations.RunSQL(BILLED_ONCE, "DROP TRIGGER overage_is_billed_once ON usage_overage")
    ]
