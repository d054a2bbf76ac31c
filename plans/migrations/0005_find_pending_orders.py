"""Pending orders are few and found by their age, so that those nobody pays can be cancelled."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("plans", "0004_plans_fill_pools"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="order",
            index=models.Index(
                condition=models.Q(("state", "pending")),
                fields=["created_at"],
                name="order_pending",
            ),
        ),
    ]
