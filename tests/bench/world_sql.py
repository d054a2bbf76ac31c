"""What fills the world, in order. Amounts are mt; "draw" is a repeatable random number by id."""

from collections.abc import Iterator, Mapping

from django.db import models

NUMBERED = (
    "accounts_account",
    "accounts_subscriber",
    "accounts_numberassignment",
    "usage_pool",
    "usage_poolmember",
    "usage_bucket",
)
NEXT_ID = "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT MAX(id) FROM {table}))"

OF_SUBSCRIBERS = "FROM generate_series(1, %(subscribers)s) AS one (id)"

# A bucket each for 1 to 5 places in the burn order; every seventh pays for one model only. The
# first one is small, so that charging walks on; every 30th subscriber has little of everything.
WANTED_BUCKETS = """
    CREATE TEMPORARY TABLE wanted AS
    SELECT ROW_NUMBER() OVER (ORDER BY one.id, place.n) AS id,
           one.id AS subscriber_id, NULL::bigint AS pool_id, place.n AS place,
           CASE WHEN one.id %% 30 = 0 THEN 20000000
                WHEN place.n = 1 THEN 10000000 + abs(hashint8(one.id)::bigint) %% 90000000
                ELSE 10000000000 END AS amount_mt,
           CASE WHEN abs(hashint8(one.id * 8 + place.n)::bigint) %% 100 < 15 AND place.n > 1
                THEN ARRAY[(SELECT model.id FROM usage_inferencemodel AS model
                             WHERE model.code = ANY(%(models)s)
                             ORDER BY model.id OFFSET one.id %% 3 LIMIT 1)]
                ELSE ARRAY[]::bigint[] END AS model_ids
      FROM generate_series(1, %(subscribers)s) AS one (id)
     CROSS JOIN LATERAL generate_series(
           1, 1 + abs(hashint8(one.id * 31)::bigint) %% 5) AS place (n)
"""

WANTED_POOL_BUCKETS = """
    INSERT INTO wanted (id, subscriber_id, pool_id, place, amount_mt, model_ids)
    SELECT (SELECT MAX(id) FROM wanted) + ROW_NUMBER() OVER (ORDER BY pool.id, place.n),
           NULL, pool.id, place.n, 100000000000000, ARRAY[]::bigint[]
      FROM usage_pool AS pool
     CROSS JOIN generate_series(1, 2) AS place (n)
"""

# Entry by entry the trigger would take minutes; PROVEN says that balances are what it would make.
GRANTS = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at)
    SELECT wanted.id, wanted.subscriber_id, 'grant', wanted.amount_mt, %(since)s FROM wanted
"""

# Buckets whose amounts are not the sum of their entries. Must return no row.
PROVEN = """
    SELECT bucket.id
      FROM usage_bucket AS bucket
      LEFT JOIN usage_ledgerentry AS entry ON entry.bucket_id = bucket.id
     GROUP BY bucket.id
    HAVING bucket.remaining_mt <> COALESCE(SUM(entry.amount_mt), 0)
        OR bucket.granted_mt
           <> COALESCE(SUM(entry.amount_mt) FILTER (WHERE entry.kind = 'grant'), 0)
     ORDER BY bucket.id
"""

# An exclusion constraint is far faster to build over the rows than row by row.
EXCLUSIONS = """
    SELECT constrained.conrelid::regclass::text, constrained.conname,
           pg_get_constraintdef(constrained.oid)
      FROM pg_constraint AS constrained
     WHERE constrained.contype = 'x'
     ORDER BY constrained.conname
"""

POOLED = """
    UPDATE usage_chargingprofile AS profile
       SET pooled = true, pool_first = profile.subscriber_id <= %(big_pool)s
     WHERE profile.subscriber_id <= %(big_pool)s + %(small_pools)s * %(members)s
"""

NAIVE = (
    "INSERT INTO naive_subscriber (id, msisdn) SELECT id, msisdn FROM accounts_subscriber",
    """INSERT INTO naive_model (id, code, input_milli, cached_milli, output_milli, reasoning_milli)
       SELECT model.id, model.code, weight.input_milli, weight.cached_milli, weight.output_milli,
              weight.reasoning_milli
         FROM usage_inferencemodel AS model
         JOIN usage_weight AS weight
           ON weight.model_id = model.id AND weight.valid_until IS NULL""",
    """INSERT INTO naive_bucket (id, subscriber_id, model_id, priority, remaining_mt, valid_from,
                                 valid_until)
       SELECT id, subscriber_id, model_ids[1], priority, remaining_mt, valid_from, valid_until
         FROM usage_bucket WHERE subscriber_id IS NOT NULL""",
)


def statements() -> Iterator[str]:
    """Everything, in an order in which references hold."""
    yield from _subscribers()
    yield from _pools()
    yield POOLED
    yield WANTED_BUCKETS
    yield WANTED_POOL_BUCKETS
    yield (
        "INSERT INTO usage_bucket "
        + _columns(
            "usage.Bucket",
            {"id": "one.id", "subscriber_id": "one.subscriber_id", "pool_id": "one.pool_id"}
            | {"kind": "'plan'", "name": "'bucket'", "priority": "10 + 10 * (one.place %% 3)"}
            | {"model_ids": "one.model_ids", "valid_from": "%(since)s", "valid_until": "%(until)s"}
            | {"close_at": "%(until)s::timestamptz + INTERVAL '1 hour'", "created_at": "%(since)s"}
            | {"granted_mt": "one.amount_mt", "remaining_mt": "one.amount_mt"}
            | {"key": "'bench:' || one.id"},
        )
        + "FROM wanted AS one ORDER BY one.id"
    )
    yield GRANTS
    yield from NAIVE


def _subscribers() -> Iterator[str]:
    yield (
        "INSERT INTO accounts_account "
        + _columns(
            "accounts.Account", {"id": "one.id", "name": "'buyer ' || one.id", "created_at": BORN}
        )
        + OF_SUBSCRIBERS
    )
    yield (
        "INSERT INTO accounts_subscriber "
        + _columns(
            "accounts.Subscriber",
            {"id": "one.id", "account_id": "one.id", "msisdn": NUMBER, "state": "'active'"}
            | {"created_at": BORN},
        )
        + OF_SUBSCRIBERS
    )
    yield (
        "INSERT INTO accounts_numberassignment "
        + _columns(
            "accounts.NumberAssignment",
            {"id": "one.id", "subscriber_id": "one.id", "msisdn": NUMBER, "valid_from": BORN},
        )
        + OF_SUBSCRIBERS
    )
    yield (
        "INSERT INTO usage_chargingprofile "
        + _columns(
            "usage.ChargingProfile",
            {"subscriber_id": "one.id", "account_id": "one.id", "state": "'active'"}
            | {"beyond": "CASE WHEN one.id %% 10 = 0 THEN 'payg' ELSE 'stop' END"}
            | {"payg_fen_per_million": "400", "payg_cap_mt": "1000000000000"},
        )
        + OF_SUBSCRIBERS
    )


def _pools() -> Iterator[str]:
    yield (
        "INSERT INTO usage_pool "
        + _columns(
            "usage.Pool",
            {"id": "one.id", "account_id": "one.id", "name": "'pool ' || one.id"}
            | {"kind": "'family'", "created_at": BORN},
        )
        + "FROM generate_series(1, %(small_pools)s + 1) AS one (id)"
    )
    yield (
        "INSERT INTO usage_poolmember "
        + _columns(
            "usage.PoolMember",
            {"id": "one.id", "subscriber_id": "one.id", "joined_at": BORN} | {"pool_id": POOL_OF},
        )
        + "FROM generate_series(1, %(big_pool)s + %(small_pools)s * %(members)s) AS one (id)"
    )


BORN = "%(born)s"
POOL_OF = (
    "CASE WHEN one.id <= %(big_pool)s THEN 1 ELSE 2 + (one.id - 1 - %(big_pool)s) / %(members)s END"
)
NUMBER = "'+86' || (%(first_number)s + one.id)"


def _columns(label: str, values: Mapping[str, str]) -> str:
    """`(columns) SELECT expressions` with the model's own defaults for what is not given."""
    from django.apps import apps

    chosen = dict(values)
    for field in apps.get_model(label)._meta.concrete_fields:
        assert isinstance(field, models.Field)
        assert field.column is not None
        if field.column in chosen or field.primary_key or field.has_db_default():
            continue
        if not field.null or field.has_default():
            chosen[field.column] = _literal(field.get_default())
    return f"({', '.join(chosen)}) SELECT {', '.join(chosen.values())} "


def _literal(value: object) -> str:
    match value:
        case bool() | int():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''").replace("%", "%%") + "'"
        case []:
            return "'{}'"
    raise ValueError(f"no literal for a default of {value!r}")
