"""Open buckets that a process remembers from one transaction to the next, instead of reading them.

A subscriber's buckets are moved only by whoever holds its charging profile, and that row names in
`remembered_by` who has seen all that ever happened to them: a process by a number of its own, or
nobody (0). Who charges otherwise sets it to 0 (charging.py); grants, closes, refunds, reservations
and all else that is no debit do so by triggers. So what a process remembers counts only while the
row that it has just locked names it.

Debits are written as ever, to the ledger and the buckets, before the answer: nothing is known here
alone, and a process that dies takes nothing along. When the server or the table is another one than
before, as after a failover or once a dump was put back, all is forgotten.
"""

import secrets
from collections.abc import Mapping
from threading import Lock
from typing import Any, TypeAlias

import msgspec

from .database import Cursor, array
from .resolving import Numbers
from .standing import Profile
from .waterfall import OpenBucket

MOST_SUBSCRIBERS = 100_000  # about 1 KB each
MOST_SHARED = 10_000

# Another server, or other rows: a table that is emptied or made anew has another file.
SERVER = "SELECT pg_postmaster_start_time(), pg_relation_filepath('usage_chargingprofile')"

CLAIM = """
    UPDATE usage_chargingprofile SET remembered_by = %(process)s
     WHERE subscriber_id = ANY(%(ids)s::bigint[])
"""

Buckets: TypeAlias = list[OpenBucket]


class Hold(msgspec.Struct, eq=False):
    """What one transaction takes from a memory: buckets of locked subscribers in burn order. After
    the commit `owners` are remembered as they stand then; `new` among them were not before."""

    found: dict[int, Buckets] = {}
    owners: set[int] = set()
    new: list[int] = []


class Memory:
    """What one process remembers, of the `most` subscribers it charged last.

    Threads share it. Between a commit and the moment when its outcome is remembered, another thread
    may charge the same subscriber: so a hold stands in the place of what it took, and only who
    finds its own hold there puts something in.
    """

    def __init__(self, most: int = MOST_SUBSCRIBERS) -> None:
        self.numbers = Numbers()
        self._most = most
        self._guard = Lock()
        self._kept: dict[int, Buckets | Hold] = {}  # the longest unused first
        self._seen: dict[int, None] = {}  # charged once, the first one first
        self._shared: dict[int, int] = {}
        self._server: tuple[Any, ...] = ()
        self._process = 0

    def hold(self, cursor: Cursor, profiles: Mapping[int, Profile]) -> Hold:
        """What is remembered of subscribers who are locked, and who will be from now on: those
        charged for the second time."""
        [server] = cursor.execute(SERVER, prepare=True).fetchall()
        with self._guard:
            if server != self._server:
                self._forget_all(server)
            hold = Hold()
            for owner, profile in profiles.items():
                self._take(hold, owner, profile.remembered_by)
            self._shorten()
        if hold.new:
            claimed = {"process": self._process, "ids": array(hold.new)}
            cursor.execute(CLAIM, claimed)
        return hold

    def keep(self, hold: Hold, own: Mapping[int, Buckets]) -> None:
        """Remember buckets as a transaction that is committed by now has left them."""
        kept, found = self._kept, hold.found
        with self._guard:
            for owner in hold.owners:
                if kept.get(owner) is hold:
                    kept[owner] = buckets = own.get(owner, [])
                    if owner not in found:
                        self._share(buckets)

    def _share(self, buckets: Buckets) -> None:
        """Let buckets that were just read have the times and the size of others, not equal ones:
        most end with the month, and what lies in one place is found faster."""
        shared = self._shared
        if len(shared) > MOST_SHARED:
            shared.clear()
        for bucket in buckets:
            bucket.valid_from = shared.setdefault(bucket.valid_from, bucket.valid_from)
            bucket.valid_until = shared.setdefault(bucket.valid_until, bucket.valid_until)
            bucket.size_mt = shared.setdefault(bucket.size_mt, bucket.size_mt)

    def _take(self, hold: Hold, owner: int, remembered_by: int) -> None:
        found = self._kept.pop(owner, None)
        if remembered_by == self._process:
            if isinstance(found, list):
                hold.found[owner] = found
        elif found is not None:  # others charge it too, so that remembering is of little use
            self._seen.pop(owner, None)
            return
        elif owner in self._seen:
            hold.new.append(owner)
        else:
            self._seen[owner] = None
            return
        hold.owners.add(owner)
        self._kept[owner] = hold

    def _shorten(self) -> None:
        for entries in (self._kept, self._seen):
            while len(entries) > self._most:
                del entries[next(iter(entries))]

    def _forget_all(self, server: tuple[Any, ...]) -> None:
        self._server = server
        self._kept.clear()
        # A number that no row names, also none that an older state of the database holds.
        self._process = secrets.randbits(62) + 1
