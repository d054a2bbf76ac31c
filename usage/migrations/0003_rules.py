"""What the database itself refuses: edits of facts, and balances that move without the ledger."""

from django.db import migrations

REFUSE = """
    CREATE FUNCTION usage_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '%: %', TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'restrict_violation';
    END $$;
"""

LEDGER_MOVES_BALANCES = """
    -- A bucket's amounts are the sum of its entries because nothing else can move them.
    CREATE FUNCTION usage_apply_ledger() RETURNS trigger LANGUAGE plpgsql
        SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
    DECLARE
        touched bigint;
        named bigint;
    BEGIN
        UPDATE usage_bucket AS bucket
           SET remaining_mt = bucket.remaining_mt + movement.amount_mt,
               granted_mt = bucket.granted_mt + movement.granted_mt,
               adjusted_mt = bucket.adjusted_mt + movement.adjusted_mt
          FROM (SELECT entry.bucket_id,
                       SUM(entry.amount_mt)::bigint AS amount_mt,
                       SUM(CASE WHEN entry.kind = 'grant'
                                THEN entry.amount_mt ELSE 0 END)::bigint AS granted_mt,
                       SUM(CASE WHEN entry.kind = 'adjustment'
                                THEN entry.amount_mt ELSE 0 END)::bigint AS adjusted_mt
                  FROM new_entries AS entry
                 GROUP BY entry.bucket_id) AS movement
         WHERE bucket.id = movement.bucket_id;
        GET DIAGNOSTICS touched = ROW_COUNT;
        SELECT COUNT(DISTINCT entry.bucket_id) INTO named FROM new_entries AS entry;
        IF touched <> named THEN
            RAISE EXCEPTION 'usage_ledgerentry: entry of a bucket that does not exist'
                USING ERRCODE = 'foreign_key_violation';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER ledger_moves_balances AFTER INSERT ON usage_ledgerentry
        REFERENCING NEW TABLE AS new_entries
        FOR EACH STATEMENT EXECUTE FUNCTION usage_apply_ledger();

    CREATE TRIGGER bucket_starts_empty BEFORE INSERT ON usage_bucket FOR EACH ROW
        WHEN (NEW.granted_mt <> 0 OR NEW.adjusted_mt <> 0
              OR NEW.remaining_mt <> 0 OR NEW.reserved_mt <> 0)
        EXECUTE FUNCTION usage_refuse('a bucket starts empty; grant into it by a ledger entry');
    CREATE TRIGGER bucket_moves_by_ledger BEFORE UPDATE ON usage_bucket FOR EACH ROW
        WHEN ((OLD.granted_mt <> NEW.granted_mt OR OLD.adjusted_mt <> NEW.adjusted_mt
               OR OLD.remaining_mt <> NEW.remaining_mt) AND pg_trigger_depth() < 1)
        EXECUTE FUNCTION usage_refuse('amounts move by ledger entries only');
    CREATE TRIGGER bucket_is_kept BEFORE DELETE ON usage_bucket FOR EACH ROW
        EXECUTE FUNCTION usage_refuse('buckets are kept; void or close it instead');
"""

LEDGER_MOVES_BALANCES_REVERSE = """
    DROP TRIGGER bucket_is_kept ON usage_bucket;
    DROP TRIGGER bucket_moves_by_ledger ON usage_bucket;
    DROP TRIGGER bucket_starts_empty ON usage_bucket;
    DROP TRIGGER ledger_moves_balances ON usage_ledgerentry;
    DROP FUNCTION usage_apply_ledger();
"""

APPEND_ONLY = [
    "usage_ledgerentry",
    "usage_usageevent",
    "usage_usagebatch",
    "usage_usagetally",
    "usage_blockchange",
]


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_hot_tables")]

    operations = [
        migrations.RunSQL(REFUSE, "DROP FUNCTION usage_refuse()"),
        migrations.RunSQL(LEDGER_MOVES_BALANCES, LEDGER_MOVES_BALANCES_REVERSE),
        *(
            migrations.RunSQL(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION usage_refuse('append-only')",
                f"DROP TRIGGER {table}_append_only ON {table}",
            )
            for table in APPEND_ONLY
        ),
    ]
