"""Rows put straight into one partition of the ledger move the buckets too."""

from django.db import migrations

# A statement trigger fires for the table that a statement names: the ledger's own one never sees
# what names a partition, and a partition's never what names the ledger.
PARTITIONS_MOVE_BALANCES = """
    DO $$
    DECLARE
        part regclass;
    BEGIN
        FOR part IN SELECT inhrelid::regclass FROM pg_inherits
                     WHERE inhparent = 'usage_ledgerentry'::regclass ORDER BY 1
        LOOP
            EXECUTE format(
                'CREATE TRIGGER ledger_moves_balances AFTER INSERT ON %s '
                'REFERENCING NEW TABLE AS new_entries '
                'FOR EACH STATEMENT EXECUTE FUNCTION usage_apply_ledger()', part);
        END LOOP;
    END $$;
"""

REVERSE = """
    DO $$
    DECLARE
        part regclass;
    BEGIN
        FOR part IN SELECT inhrelid::regclass FROM pg_inherits
                     WHERE inhparent = 'usage_ledgerentry'::regclass ORDER BY 1
        LOOP
            EXECUTE format('DROP TRIGGER ledger_moves_balances ON %s', part);
        END LOOP;
    END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0023_pool_history")]

    operations = [migrations.RunSQL(PARTITIONS_MOVE_BALANCES, REVERSE)]
