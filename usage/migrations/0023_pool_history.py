"""Who let a member in and out, and a way to the closed buckets of a pool."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_transitions_are_evidence"),
        ("usage", "0022_corrections_at_work"),
    ]

    operations = [
        migrations.AddField(
            model_name="poolmember",
            name="joined_by",
            field=models.CharField(blank=True, max_length=150),
        ),
        migrations.AddField(
            model_name="poolmember",
            name="left_by",
            field=models.CharField(blank=True, max_length=150),
        ),
        migrations.AddIndex(
            model_name="bucket",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", False), ("pool__isnull", False)),
                fields=["pool", "valid_until"],
                name="bucket_closed_of_pool",
            ),
        ),
    ]
