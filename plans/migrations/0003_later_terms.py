"""Rollover, hours and the end of a session as terms of a plan version."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("plans", "0002_append_only"),
    ]

    operations = [
        migrations.AddField(
            model_name="planversion",
            name="final_action",
            field=models.CharField(
                choices=[
                    ("REDIRECT", "To the top-up page"),
                    ("TERMINATE", "End the session"),
                    ("RESTRICT", "Go on with the free model"),
                ],
                db_default="REDIRECT",
                default="REDIRECT",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="planversion",
            name="free_model",
            field=models.CharField(blank=True, db_default="", max_length=100),
        ),
        migrations.AddField(
            model_name="planversion",
            name="minute_from",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="planversion",
            name="minute_until",
            field=models.PositiveSmallIntegerField(db_default=1440, default=1440),
        ),
        migrations.AddField(
            model_name="planversion",
            name="pool_first",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="planversion",
            name="rollover_cap_tokens",
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="planversion",
            name="rollover_percent",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.AddConstraint(
            model_name="planversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("rollover_percent__lte", 100)),
                name="plan_version_rollover_is_a_share",
            ),
        ),
        migrations.AddConstraint(
            model_name="planversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("minute_from__lt", 1440),
                    ("minute_until__lte", 1440),
                    models.Q(("minute_from", models.F("minute_until")), _negated=True),
                ),
                name="plan_version_hours_within_day",
            ),
        ),
        migrations.AddConstraint(
            model_name="planversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("final_action", "RESTRICT"), _negated=True),
                    models.Q(("free_model", ""), _negated=True),
                    _connector="OR",
                ),
                name="plan_version_restricts_to_a_model",
            ),
        ),
    ]
