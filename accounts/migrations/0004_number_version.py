"""Counts the changes of who holds or held a number, so that who remembers holders can ask in one
read whether any of that is old. A number's first holder changes nothing that anybody remembers."""

from django.db import migrations, models

COUNT_CHANGES = """
    -- Begins anywhere, so that nobody takes one database for another.
    INSERT INTO accounts_numberversion (id, version)
    VALUES (1, (EXTRACT(epoch FROM clock_timestamp()) * 1000000)::bigint);

    CREATE FUNCTION accounts_number_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' AND NOT EXISTS (
               SELECT 1 FROM accounts_numberassignment AS former
                WHERE former.msisdn = NEW.msisdn AND former.id <> NEW.id) THEN
            RETURN NULL;
        END IF;
        UPDATE accounts_numberversion SET version = version + 1 WHERE id = 1;
        RETURN NULL;
    END $$;

    CREATE TRIGGER number_is_held_again AFTER INSERT ON accounts_numberassignment
        FOR EACH ROW EXECUTE FUNCTION accounts_number_changed();
    CREATE TRIGGER number_was_held_by_another AFTER UPDATE ON accounts_numberassignment
        FOR EACH ROW WHEN (OLD.msisdn <> NEW.msisdn OR OLD.subscriber_id <> NEW.subscriber_id
                           OR OLD.valid_from <> NEW.valid_from)
        EXECUTE FUNCTION accounts_number_changed();
    CREATE TRIGGER number_was_never_held AFTER DELETE ON accounts_numberassignment
        FOR EACH ROW EXECUTE FUNCTION accounts_number_changed();
"""

REVERSE = """
    DROP TRIGGER number_was_never_held ON accounts_numberassignment;
    DROP TRIGGER number_was_held_by_another ON accounts_numberassignment;
    DROP TRIGGER number_is_held_again ON accounts_numberassignment;
    DROP FUNCTION accounts_number_changed();
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_number_holders")]

    operations = [
        migrations.CreateModel(
            name="NumberVersion",
            fields=[
                ("id", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("version", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "number version",
                "verbose_name_plural": "number versions",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="number_version_is_one_row"
                    )
                ],
            },
        ),
        migrations.RunSQL(COUNT_CHANGES, REVERSE),
    ]
