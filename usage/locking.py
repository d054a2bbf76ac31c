"""Whom a charge concerns is locked first: charging profiles, in subscriber order, without wait
for ever (lock_timeout is set on every connection)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from config.errors import DomainError

from .database import Cursor
from .waterfall import OpenBucket, in_burn_order

# In subscriber order, so that two batches never wait for each other crosswise.
LOCK_PROFILES = """
    SELECT profile.subscriber_id, profile.account_id, profile.state, profile.beyond,
           profile.payg_fen_per_million, profile.payg_cap_mt, profile.blocked,
           profile.noticed_cycle, profile.noticed_percent
      FROM usage_chargingprofile AS profile
     WHERE profile.subscriber_id = ANY(%(ids)s)
     ORDER BY profile.subscriber_id
       FOR NO KEY UPDATE
"""


# What the subscribers of a batch may draw on.
OPEN_BUCKETS = """
    SELECT bucket.subscriber_id, bucket.id, bucket.priority, bucket.valid_from,
           bucket.valid_until, bucket.model_ids, bucket.created_at,
           bucket.remaining_mt - bucket.reserved_mt, bucket.granted_mt + bucket.adjusted_mt
      FROM usage_bucket AS bucket
     WHERE bucket.subscriber_id = ANY(%(ids)s) AND bucket.closed_at IS NULL
     ORDER BY bucket.subscriber_id, bucket.id
"""


@dataclass(slots=True)
class Profile:
    """A charging profile as charging holds it, locked."""

    subscriber_id: int
    account_id: int
    state: str
    beyond: str
    payg_fen_per_million: int
    payg_cap_mt: int
    blocked: str
    noticed_cycle: date | None
    noticed_percent: int


class UnknownSubscriber(DomainError):
    """There is no such subscriber."""

    code = "unknown_subscriber"
    status = 404
    title = "Unknown subscriber"


def lock_profiles(cursor: Cursor, ids: Sequence[int]) -> dict[int, Profile]:
    """Lock the profiles of these subscribers, in order; every one of them must exist."""
    rows = cursor.execute(LOCK_PROFILES, {"ids": list(ids)}, prepare=True)
    profiles = {row[0]: Profile(*row) for row in rows}
    missing = set(ids) - set(profiles)
    if missing:
        raise UnknownSubscriber(f"No charging profile for subscribers {sorted(missing)[:5]}.")
    return profiles


def open_buckets(cursor: Cursor, ids: list[int]) -> dict[int, list[OpenBucket]]:
    """The open buckets of locked subscribers, each list in burn order."""
    found: dict[int, list[OpenBucket]] = defaultdict(list)
    for row in cursor.execute(OPEN_BUCKETS, {"ids": ids}, prepare=True):
        subscriber_id, bucket_id, priority, start, end, models, created, available, size = row
        found[subscriber_id].append(
            OpenBucket(bucket_id, priority, start, end, frozenset(models), created, available, size)
        )
    return defaultdict(list, {owner: in_burn_order(own) for owner, own in found.items()})
