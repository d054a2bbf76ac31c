"""A dropped day keeps what buckets paid of it, so that the proof of its period still holds."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0004_newest_word_on_a_number")]

    operations = [
        migrations.AddField(
            model_name="droppedday",
            name="debited_mt",
            field=models.BigIntegerField(default=0),
            preserve_default=False,
        ),
    ]
