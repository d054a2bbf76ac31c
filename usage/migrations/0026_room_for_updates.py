"""Buckets and profiles are updated in place: half of a page stays free, so that no update has to
touch the indexes. Pages written before fill up as they were; VACUUM FULL would rewrite them."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("usage", "0025_compact_keys")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE usage_bucket SET (fillfactor = 50)",
            "ALTER TABLE usage_bucket RESET (fillfactor)",
        ),
        migrations.RunSQL(
            "ALTER TABLE usage_chargingprofile SET (fillfactor = 70)",
            "ALTER TABLE usage_chargingprofile RESET (fillfactor)",
        ),
        migrations.RunSQL(
            "ALTER TABLE usage_cycleoverage SET (fillfactor = 70)",
            "ALTER TABLE usage_cycleoverage RESET (fillfactor)",
        ),
        migrations.RunSQL(
            "ALTER TABLE usage_poolusage SET (fillfactor = 70)",
            "ALTER TABLE usage_poolusage RESET (fillfactor)",
        ),
    ]
