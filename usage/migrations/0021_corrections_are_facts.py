"""Amendments and movements are facts too: the database refuses to edit them."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("usage", "0020_charging_engine")]

    operations = [
        migrations.RunSQL(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION usage_refuse('append-only')",
            f"DROP TRIGGER {table}_append_only ON {table}",
        )
        for table in ("usage_amendment", "usage_movement")
    ]
