"""Transitions are evidence: each names its actor, and nobody changes or removes one."""

from django.db import migrations, models

REFUSE_CHANGES = """
CREATE FUNCTION accounts_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: add a further row instead', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER subscriber_transition_append_only
    BEFORE UPDATE OR DELETE ON accounts_subscribertransition
    FOR EACH ROW EXECUTE FUNCTION accounts_refuse_change();
"""

ALLOW_CHANGES = """
DROP TRIGGER subscriber_transition_append_only ON accounts_subscribertransition;
DROP FUNCTION accounts_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.AddConstraint(
            model_name="subscribertransition",
            constraint=models.CheckConstraint(
                name="subscriber_transition_has_actor", condition=~models.Q(actor="")
            ),
        ),
        migrations.RunSQL(sql=REFUSE_CHANGES, reverse_sql=ALLOW_CHANGES),
    ]
