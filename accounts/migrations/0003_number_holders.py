"""Who held a number is asked for every event: the index alone answers."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_transitions_are_evidence"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="numberassignment",
            name="number_msisdn_from",
        ),
        migrations.AddIndex(
            model_name="numberassignment",
            index=models.Index(
                fields=["msisdn", "valid_from"], include=("subscriber",), name="number_holders"
            ),
        ),
    ]
