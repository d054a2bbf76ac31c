"""Many grants in one go: what a renewal of thousands of plans at midnight needs.

The same movement as `ledger.grant`, written set by set: the locks of all profiles and pools in
order, all buckets, all entries.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

from django.db import transaction
from psycopg.types.json import Jsonb

from . import callbacks, pools
from .database import fast_cursor
from .enforcement import reconsider
from .ledger import Grant, GrantReused
from .models import Bucket, LedgerEntry

# Opens the buckets whose key is new, empty as the database wants them.
OPEN_BUCKETS = """
    INSERT INTO usage_bucket (
        subscriber_id, pool_id, kind, name, name_en, priority, model_ids, minute_from,
        minute_until, rollover_percent, rollover_cap_mt, granted_mt, adjusted_mt, remaining_mt,
        reserved_mt, valid_from, valid_until, close_at, created_at, key)
    SELECT wanted.subscriber_id, wanted.pool_id, wanted.kind, wanted.name, wanted.name_en,
           wanted.priority, wanted.model_ids, wanted.minute_from, wanted.minute_until,
           wanted.rollover_percent, wanted.rollover_cap_mt, 0, 0, 0, 0, wanted.valid_from,
           wanted.valid_until, wanted.close_at, %(now)s, wanted.key
      FROM jsonb_to_recordset(%(wanted)s) AS wanted (
           subscriber_id bigint, pool_id bigint, kind text, name text, name_en text,
           priority smallint, model_ids bigint[], minute_from smallint, minute_until smallint,
           rollover_percent smallint, rollover_cap_mt bigint, valid_from timestamptz,
           valid_until timestamptz, close_at timestamptz, key text)
     ORDER BY wanted.subscriber_id, wanted.pool_id, wanted.key
        ON CONFLICT (key) DO NOTHING
    RETURNING id, subscriber_id, key
"""

# One grant entry for each opened bucket; the ledger's trigger moves the balances.
ADD_GRANTS = """
    INSERT INTO usage_ledgerentry (bucket_id, subscriber_id, kind, amount_mt, recorded_at, actor,
                                   reason)
    SELECT opened.bucket_id, opened.subscriber_id, %(kind)s, opened.amount_mt, %(now)s, '', ''
      FROM unnest(%(bucket_ids)s::bigint[], %(owners)s::bigint[], %(amounts)s::bigint[])
           AS opened (bucket_id, subscriber_id, amount_mt)
     ORDER BY opened.bucket_id
"""


@transaction.atomic
def grant_many(*, grants: Sequence[Grant], now: datetime) -> int:
    """Open these buckets and say how many were new; a repeat of a key opens nothing.

    Members of a pool who wait for it are looked at once the transaction has committed. GrantReused
    when a key was granted before to another owner or with another amount.
    """
    if not grants:
        return 0
    by_key = {grant.key: grant for grant in grants}
    assert len(by_key) == len(grants), "two grants of one call with the same key"
    assert all(grant.amount_mt > 0 for grant in grants), "a grant is above zero"
    owners = sorted({grant.subscriber_id for grant in grants if grant.subscriber_id is not None})
    pool_ids = {grant.pool_id for grant in grants if grant.pool_id is not None}
    with fast_cursor() as cursor:
        pools.lock_with_pools(cursor, subscriber_ids=owners, pool_ids=pool_ids, now=now)
        wanted = Jsonb([_row(grant, now) for grant in grants])
        opened = cursor.execute(OPEN_BUCKETS, {"wanted": wanted, "now": now}).fetchall()
        parameters = {
            "kind": LedgerEntry.Kind.GRANT.value,
            "now": now,
            "bucket_ids": [bucket_id for bucket_id, _owner, _key in opened],
            "owners": [owner for _bucket_id, owner, _key in opened],
            "amounts": [by_key[key].amount_mt for _bucket_id, _owner, key in opened],
        }
        cursor.execute(ADD_GRANTS, parameters)
    _refuse_reused(by_key, {key for _bucket_id, _owner, key in opened})
    valid = {bucket: by_key[key] for bucket, _o, key in opened if by_key[key].valid_from <= now}
    refill = f"bucket:{min(valid)}" if valid else ""
    if owners:
        reconsider(subscriber_ids=owners, now=now, refill=refill)
    _open_pools({one.pool_id for one in valid.values() if one.pool_id is not None}, refill, now)
    return len(opened)


def _open_pools(pool_ids: Collection[int], refill: str, now: datetime) -> None:
    """Tell the sessions of pools that have got tokens, and look at their members at the commit:
    profiles are locked before pools, so not within."""
    with fast_cursor() as cursor:
        for pool_id in sorted(pool_ids):
            callbacks.reauthorize_pool(cursor, pool_id=pool_id, cause=refill, now=now)
            look = partial(pools.open_members, pool_id=pool_id, refill=refill, now=now)
            # Should it fail, all is bought all the same, and the sweep looks at them.
            transaction.on_commit(look, robust=True)


def _row(grant: Grant, now: datetime) -> dict[str, object]:
    return {
        "subscriber_id": grant.subscriber_id,
        "pool_id": grant.pool_id,
        "kind": grant.kind,
        "name": grant.name,
        "name_en": grant.name_en,
        "priority": grant.burn_priority,
        "model_ids": list(grant.model_ids),
        "minute_from": grant.minute_from,
        "minute_until": grant.minute_until,
        "rollover_percent": grant.rollover_percent,
        "rollover_cap_mt": grant.rollover_cap_mt,
        "valid_from": grant.valid_from.isoformat(),
        "valid_until": grant.valid_until.isoformat(),
        "close_at": grant.close_at(now).isoformat(),
        "key": grant.key,
    }


def _refuse_reused(by_key: dict[str, Grant], opened: set[str]) -> None:
    for bucket in Bucket.objects.filter(key__in=set(by_key) - opened):
        grant = by_key[bucket.key]
        if not grant.is_of(bucket):
            raise GrantReused(f"{bucket.key} was granted before with other content.")
