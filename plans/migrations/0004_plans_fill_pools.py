"""A plan version may fill its account's pool; a purchase keeps which pool that is."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("plans", "0003_later_terms"),
        ("usage", "0023_pool_history"),
    ]

    operations = [
        migrations.AddField(
            model_name="order",
            name="pool",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="orders",
                to="usage.pool",
            ),
        ),
        migrations.AddField(
            model_name="planversion",
            name="pool_kind",
            field=models.CharField(
                blank=True,
                choices=[("family", "Family"), ("enterprise", "Enterprise")],
                db_default="",
                default="",
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="pool",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="subscriptions",
                to="usage.pool",
            ),
        ),
        migrations.AddConstraint(
            model_name="planversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("pool_kind", ""), ("tokens__gt", 0), _connector="OR"),
                name="plan_version_fills_a_pool_with_tokens",
            ),
        ),
    ]
