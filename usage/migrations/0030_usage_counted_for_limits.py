"""What those with limits have used, by day: instead of summing events at each reserve."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0029_counters_may_be_rounded")]

    operations = [
        migrations.AddField(
            model_name="chargingprofile",
            name="limited_since",
            field=models.DateField(editable=False, null=True),
        ),
        migrations.CreateModel(
            name="LimitUsage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("subscriber_id", models.BigIntegerField()),
                ("api_key_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("mt", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "usage counted for limits",
                "verbose_name_plural": "usage counted for limits",
                "constraints": [
                    models.UniqueConstraint(
                        fields=["subscriber_id", "api_key_id", "day"], name="limit_usage_once"
                    )
                ],
            },
        ),
    ]
