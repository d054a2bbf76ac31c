"""Overage is billed from its rows: only the invoice line that bills one may be written later."""

from django.db import migrations

FACTS = [
    "event_id",
    "batch_id",
    "subscriber_id",
    "account_id",
    "model_id",
    "cycle",
    "occurred_at",
    "recorded_at",
    "mt",
    "priced",
    "fen_per_million",
]
OLD = ", ".join(f"OLD.{name}" for name in FACTS)
NEW = ", ".join(f"NEW.{name}" for name in FACTS)


class Migration(migrations.Migration):
    dependencies = [("usage", "0005_debits_of_dropped_days")]

    operations = [
        migrations.RunSQL(
            f"CREATE TRIGGER overage_facts_stay BEFORE UPDATE ON usage_overage FOR EACH ROW "
            f"WHEN (ROW({OLD}) IS DISTINCT FROM ROW({NEW})) "
            f"EXECUTE FUNCTION usage_refuse('only its invoice line may change')",
            "DROP TRIGGER overage_facts_stay ON usage_overage",
        ),
        migrations.RunSQL(
            "CREATE TRIGGER overage_is_kept BEFORE DELETE ON usage_overage FOR EACH ROW "
            "EXECUTE FUNCTION usage_refuse('overage is kept')",
            "DROP TRIGGER overage_is_kept ON usage_overage",
        ),
    ]
