"""How far the numbers of a node's batches were looked at, and which gaps were open there."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0027_remembered_buckets")]

    operations = [
        migrations.CreateModel(
            name="SequenceMark",
            fields=[
                (
                    "node",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        related_name="mark",
                        serialize=False,
                        to="usage.node",
                    ),
                ),
                ("upto", models.BigIntegerField()),
                ("gap_starts", ArrayField(models.BigIntegerField(), default=list)),
                ("gap_ends", ArrayField(models.BigIntegerField(), default=list)),
            ],
            options={
                "verbose_name": "mark in the numbers of batches",
                "verbose_name_plural": "marks in the numbers of batches",
            },
        ),
    ]
