"""Versions and charges are facts: the database refuses to change or remove them."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION plans_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused; correct it by a further row', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER plans_planversion_append_only
    BEFORE UPDATE OR DELETE ON plans_planversion
    FOR EACH ROW EXECUTE FUNCTION plans_refuse_change();

CREATE TRIGGER plans_charge_append_only
    BEFORE UPDATE OR DELETE ON plans_charge
    FOR EACH ROW EXECUTE FUNCTION plans_refuse_change();
"""

REVERSE = """
DROP TRIGGER plans_charge_append_only ON plans_charge;
DROP TRIGGER plans_planversion_append_only ON plans_planversion;
DROP FUNCTION plans_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("plans", "0001_initial")]

    operations = [migrations.RunSQL(FORWARD, REVERSE)]
