"""By how many tokens a node's totals may be off: llama.cpp's text has six digits."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0028_sequence_marks")]

    operations = [
        migrations.AddField(
            model_name="nodecounter",
            name="rounding",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="nodecounter",
            name="rounding_since",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
