"""The hot tables: partitioned where Django cannot say so, with the sequences that number them."""

from django.db import migrations, models

EVENT_SQL = """
    CREATE SEQUENCE usage_batch_id;
    CREATE TABLE usage_usageevent (
        id bigint NOT NULL,
        batch_id bigint NOT NULL,
        node_id bigint NOT NULL,
        source text NOT NULL,
        event_id text NOT NULL,
        subscriber_id bigint NOT NULL,
        api_key_id bigint,
        model_id bigint NOT NULL,
        weight_id bigint NOT NULL,
        occurred_at timestamptz NOT NULL,
        input_tokens bigint NOT NULL,
        cached_tokens bigint NOT NULL,
        output_tokens bigint NOT NULL,
        reasoning_tokens bigint NOT NULL,
        mt bigint NOT NULL,
        late boolean NOT NULL,
        CONSTRAINT usage_event_counts_not_negative CHECK (
            input_tokens >= 0 AND cached_tokens >= 0
            AND output_tokens >= 0 AND reasoning_tokens >= 0 AND mt >= 0
        )
    ) PARTITION BY RANGE (occurred_at);
    CREATE INDEX usage_event_subscriber_time ON usage_usageevent (subscriber_id, occurred_at);
    CREATE INDEX usage_event_id ON usage_usageevent USING brin (id) WITH (autosummarize = on);
    CREATE TABLE usage_usageevent_default PARTITION OF usage_usageevent DEFAULT;
"""

KEY_SQL = """
    CREATE TABLE usage_eventkey (
        key bytea NOT NULL PRIMARY KEY,
        content bytea NOT NULL,
        day date NOT NULL
    );
    CREATE INDEX usage_eventkey_day ON usage_eventkey USING brin (day) WITH (autosummarize = on);
"""

LEDGER_SQL = """
    CREATE SEQUENCE usage_ledgerentry_id_seq;
    CREATE TABLE usage_ledgerentry (
        id bigint NOT NULL DEFAULT nextval('usage_ledgerentry_id_seq'),
        bucket_id bigint NOT NULL,
        subscriber_id bigint NOT NULL,
        kind varchar(10) NOT NULL,
        amount_mt bigint NOT NULL,
        event_id bigint,
        recorded_at timestamptz NOT NULL,
        actor varchar(150) NOT NULL DEFAULT '',
        reason varchar(500) NOT NULL DEFAULT '',
        CONSTRAINT ledger_entry_sign_fits_kind CHECK (
            (kind IN ('grant', 'refund') AND amount_mt > 0)
            OR (kind IN ('debit', 'expiry', 'rollover', 'void') AND amount_mt < 0)
            OR (kind = 'adjustment' AND amount_mt <> 0)
        )
    ) PARTITION BY RANGE (recorded_at);
    CREATE INDEX usage_ledger_bucket ON usage_ledgerentry (bucket_id, id);
    CREATE INDEX usage_ledger_event ON usage_ledgerentry USING brin (event_id)
        WITH (autosummarize = on);
    CREATE TABLE usage_ledgerentry_default PARTITION OF usage_ledgerentry DEFAULT;
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    EVENT_SQL, "DROP TABLE usage_usageevent; DROP SEQUENCE usage_batch_id"
                ),
                migrations.RunSQL(KEY_SQL, "DROP TABLE usage_eventkey"),
                migrations.RunSQL(
                    LEDGER_SQL,
                    "DROP TABLE usage_ledgerentry; DROP SEQUENCE usage_ledgerentry_id_seq",
                ),
            ],
            state_operations=[
                migrations.CreateModel(
                    name="EventKey",
                    fields=[
                        ("key", models.BinaryField(primary_key=True, serialize=False)),
                        ("content", models.BinaryField()),
                        ("day", models.DateField()),
                    ],
                    options={
                        "verbose_name": "event key",
                        "verbose_name_plural": "event keys",
                    },
                ),
                migrations.CreateModel(
                    name="LedgerEntry",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("bucket_id", models.BigIntegerField()),
                        ("subscriber_id", models.BigIntegerField()),
                        (
                            "kind",
                            models.CharField(
                                choices=[
                                    ("grant", "Grant"),
                                    ("debit", "Debit"),
                                    ("refund", "Refund"),
                                    ("expiry", "Expiry"),
                                    ("rollover", "Rollover"),
                                    ("adjustment", "Adjustment"),
                                    ("void", "Void"),
                                ],
                                max_length=10,
                            ),
                        ),
                        ("amount_mt", models.BigIntegerField()),
                        ("event_id", models.BigIntegerField(null=True)),
                        ("recorded_at", models.DateTimeField()),
                        ("actor", models.CharField(blank=True, max_length=150)),
                        ("reason", models.CharField(blank=True, max_length=500)),
                    ],
                    options={
                        "verbose_name": "ledger entry",
                        "verbose_name_plural": "ledger entries",
                    },
                ),
                migrations.CreateModel(
                    name="UsageEvent",
                    fields=[
                        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("batch_id", models.BigIntegerField()),
                        ("node_id", models.BigIntegerField()),
                        ("source", models.TextField()),
                        ("event_id", models.TextField()),
                        ("subscriber_id", models.BigIntegerField()),
                        ("api_key_id", models.BigIntegerField(null=True)),
                        ("model_id", models.BigIntegerField()),
                        ("weight_id", models.BigIntegerField()),
                        ("occurred_at", models.DateTimeField()),
                        ("input_tokens", models.BigIntegerField()),
                        ("cached_tokens", models.BigIntegerField()),
                        ("output_tokens", models.BigIntegerField()),
                        ("reasoning_tokens", models.BigIntegerField()),
                        ("mt", models.BigIntegerField()),
                        ("late", models.BooleanField()),
                    ],
                    options={
                        "verbose_name": "usage event",
                        "verbose_name_plural": "usage events",
                    },
                ),
            ],
        ),
    ]
