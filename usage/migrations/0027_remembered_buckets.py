"""Which process knows the open buckets of a subscriber without reading them, and that nobody does
once they were moved by anything but a debit; whoever debits sees to it by itself. The guard of the
amounts looks after an update now: before, it locked each row in a step of its own, a sixth of what
a debit writes to the log."""

from importlib import import_module

from django.db import migrations, models

FORGET = """
    CREATE FUNCTION usage_forget_buckets() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE usage_chargingprofile AS profile SET remembered_by = 0
         WHERE profile.subscriber_id = NEW.subscriber_id AND profile.remembered_by <> 0;
        RETURN NULL;
    END $$;

    -- Everything of a bucket that charging looks at, but the amounts that the ledger moves.
    CREATE TRIGGER bucket_is_read_again
        AFTER INSERT OR UPDATE OF subscriber_id, priority, model_ids, minute_from, minute_until,
                                  reserved_mt, valid_from, valid_until, closed_at, created_at
        ON usage_bucket FOR EACH ROW
        WHEN (NEW.subscriber_id IS NOT NULL) EXECUTE FUNCTION usage_forget_buckets();
"""

REVERSE = """
    DROP TRIGGER bucket_is_read_again ON usage_bucket;
    DROP FUNCTION usage_forget_buckets();
"""

# As in 0003, but that debits alone, as usage writes them, move one amount; in the order of buckets,
# since neighbours then are found with less work.
APPLY_LEDGER = """
    CREATE OR REPLACE FUNCTION usage_apply_ledger() RETURNS trigger LANGUAGE plpgsql
        SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off
        SET enable_hashagg = off AS $$
    DECLARE
        touched bigint;
        named bigint;
    BEGIN
        IF EXISTS (SELECT 1 FROM new_entries AS entry WHERE entry.kind <> 'debit') THEN
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
            UPDATE usage_chargingprofile AS profile SET remembered_by = 0
              FROM (SELECT DISTINCT bucket.subscriber_id
                      FROM new_entries AS entry
                      JOIN usage_bucket AS bucket ON bucket.id = entry.bucket_id) AS owner
             WHERE profile.subscriber_id = owner.subscriber_id AND profile.remembered_by <> 0;
        ELSE
            UPDATE usage_bucket AS bucket
               SET remaining_mt = bucket.remaining_mt + movement.amount_mt
              FROM (SELECT entry.bucket_id, SUM(entry.amount_mt)::bigint AS amount_mt
                      FROM new_entries AS entry
                     GROUP BY entry.bucket_id) AS movement
             WHERE bucket.id = movement.bucket_id;
            GET DIAGNOSTICS touched = ROW_COUNT;
        END IF;
        SELECT COUNT(DISTINCT entry.bucket_id) INTO named FROM new_entries AS entry;
        IF touched <> named THEN
            RAISE EXCEPTION 'usage_ledgerentry: entry of a bucket that does not exist'
                USING ERRCODE = 'foreign_key_violation';
        END IF;
        RETURN NULL;
    END $$;
"""


GUARD = """
    DROP TRIGGER bucket_moves_by_ledger ON usage_bucket;
    CREATE TRIGGER bucket_moves_by_ledger {when} UPDATE ON usage_bucket FOR EACH ROW
        WHEN ((OLD.granted_mt <> NEW.granted_mt OR OLD.adjusted_mt <> NEW.adjusted_mt
               OR OLD.remaining_mt <> NEW.remaining_mt) AND pg_trigger_depth() < 1)
        EXECUTE FUNCTION usage_refuse('amounts move by ledger entries only');
"""


def _former_ledger() -> str:
    """The function as 0003 has it."""
    rules = import_module("usage.migrations.0003_rules").LEDGER_MOVES_BALANCES
    function, _triggers = rules.split("CREATE TRIGGER", 1)
    return function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)


class Migration(migrations.Migration):
    dependencies = [("usage", "0026_room_for_updates")]

    operations = [
        migrations.AddField(
            model_name="chargingprofile",
            name="remembered_by",
            field=models.BigIntegerField(db_default=0, default=0, editable=False),
        ),
        migrations.RunSQL(FORGET, REVERSE),
        migrations.RunSQL(APPLY_LEDGER, _former_ledger()),
        migrations.RunSQL(GUARD.format(when="AFTER"), GUARD.format(when="BEFORE")),
    ]
