"""Whether what a process remembers of buckets is what is stored."""

from django.db import transaction

from usage.database import fast_cursor
from usage.locking import OPEN_BUCKETS, _open_buckets, lock_profiles
from usage.remembering import Memory


def remembered_rightly(memory: Memory) -> int:
    """How many subscribers' buckets a memory would use; each must be as stored."""
    held = {owner: kept for owner, kept in memory._kept.items() if isinstance(kept, list)}
    if not held:
        return 0
    with transaction.atomic(), fast_cursor() as cursor:
        profiles = lock_profiles(cursor, sorted(held))
        used = [owner for owner, one in profiles.items() if one.remembered_by == memory._process]
        stored = _open_buckets(cursor, OPEN_BUCKETS, sorted(used))
    for owner in used:
        assert held[owner] == stored.get(owner, []), owner
    return len(used)
