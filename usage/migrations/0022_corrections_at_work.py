"""Corrections at work: late additions are told apart, a wrong weight can be withdrawn."""

import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.contrib.postgres.indexes
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_transitions_are_evidence"),
        ("usage", "0021_corrections_are_facts"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="weight",
            name="weight_periods_disjoint",
        ),
        migrations.AddField(
            model_name="amendment",
            name="late",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="rerating",
            name="applied_by",
            field=models.CharField(blank=True, max_length=150),
        ),
        migrations.AddField(
            model_name="rerating",
            name="worked_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="weight",
            name="withdrawn_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="weight",
            name="withdrawn_by",
            field=models.CharField(blank=True, max_length=150),
        ),
        migrations.AddField(
            model_name="weight",
            name="withdrawn_reason",
            field=models.CharField(blank=True, max_length=500),
        ),
        migrations.AddIndex(
            model_name="amendment",
            index=models.Index(
                fields=["subscriber_id", "occurred_at"], name="amendment_subscriber_time"
            ),
        ),
        migrations.AddIndex(
            model_name="overage",
            index=django.contrib.postgres.indexes.BrinIndex(
                autosummarize=True, fields=["event_id"], name="overage_event"
            ),
        ),
        migrations.AddConstraint(
            model_name="weight",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                condition=models.Q(("withdrawn_at__isnull", True)),
                expressions=[
                    ("model", "="),
                    (
                        models.Func(
                            "valid_from",
                            "valid_until",
                            django.contrib.postgres.fields.ranges.RangeBoundary(),
                            function="tstzrange",
                            output_field=django.contrib.postgres.fields.ranges.DateTimeRangeField(),
                        ),
                        "&&",
                    ),
                ],
                name="weight_periods_disjoint",
            ),
        ),
    ]
