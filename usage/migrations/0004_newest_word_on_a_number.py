"""Finds what the feed said last of a number, when the number changes hands."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0003_rules")]

    operations = [
        migrations.AddIndex(
            model_name="blockchange",
            index=models.Index(fields=["msisdn", "-id"], name="block_change_newest"),
        ),
    ]
