"""Indexes that another one already serves: each cost an insert for every invoice or line.

(account, cycle) and (invoice, position) begin with the key; nobody searches numbers by a pattern.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0004_guards_by_statement")]

    operations = [
        migrations.AlterField(
            model_name="invoice",
            name="account",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="invoices",
                to="accounts.account",
            ),
        ),
        migrations.AlterField(
            model_name="invoiceline",
            name="invoice",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="lines",
                to="invoicing.invoice",
            ),
        ),
        migrations.AlterField(
            model_name="invoice", name="number", field=models.CharField(max_length=20)
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.UniqueConstraint(name="invoice_number_once", fields=["number"]),
        ),
    ]
