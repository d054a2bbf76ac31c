"""Small reports of many callers, counted together: one transaction for all that wait.

A request with one event costs a commit and a dozen statements of its own. So requests that come
while a transaction is at work wait for it, and then share the next: the first of them leads, asks
for all their keys at once, counts all their events at once, and wakes each with its own answer
after the commit. Nobody waits for company: a request that finds nothing at work goes at once.

The others hold no connection while they wait. A process that is killed has answered nobody, so
everything may be sent again, and what was counted shows as duplicate.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

from django.db import connection

from accounts import keys
from config import clock
from config.dberrors import is_contention, is_lost_connection
from config.errors import DomainError

from .batches import BatchResult
from .database import fast_cursor
from .ingest import Delivery, ingest_together
from .models import Node, UsageBatch

SMALL_EVENTS = 50  # more are worth a transaction of their own
MOST_EVENTS = 2000  # in one transaction
LEADERS = 1
WAIT_SECONDS = 30.0
SCOPE = "usage:write"
logger = logging.getLogger(__name__)

# The keys of nodes, with the nodes they speak for.
CALLERS = """
    SELECT key.public_id, key.id, key.secret_hash, key.scopes, key.expires_at, key.revoked_at,
           key.last_used_at, node.id, node.name, node.sources
      FROM accounts_apikey AS key
      JOIN usage_nodekey AS held ON held.api_key_id = key.id
      JOIN usage_node AS node ON node.id = held.node_id
     WHERE key.public_id = ANY(%(public_ids)s)
     ORDER BY key.public_id
"""


class NotAdmitted(Exception):
    """The token is no node's key in force that may report usage; nothing of it was stored."""


class TooBusy(DomainError):
    """The report could not be counted in time."""

    code = "unavailable"
    status = 503
    title = "Service Unavailable"


@dataclass(slots=True)
class Report:
    """What a caller sent: its bearer token, raw JSON events, its own number of the batch."""

    token: str
    events: Sequence[bytes]
    sequence: int | None = None


@dataclass(slots=True, eq=False)
class _Place:
    """A report in the queue. Its thread sleeps on `bell`, which rings once: when there is an
    outcome, or when it is its turn to lead."""

    report: Report
    bell: Lock = field(default_factory=Lock)
    outcome: BatchResult | BaseException | None = None

    def __post_init__(self) -> None:
        self.bell.acquire()

    def answer(self) -> BatchResult:
        if isinstance(self.outcome, BatchResult):
            return self.outcome
        assert self.outcome is not None
        raise self.outcome


Count = Callable[[Sequence[Report], datetime], list[BatchResult | BaseException]]


class Gathering:
    """A queue whose head leads: it takes the others along. `count` counts reports together and
    says for each what became of it."""

    def __init__(
        self, count: Count, *, leaders: int = LEADERS, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._count = count
        self._free = leaders
        self._wait_seconds = wait_seconds
        self._guard = Lock()
        self._queue: deque[_Place] = deque()

    def take(self, report: Report) -> BatchResult:
        """Count a report, alone or with others, and return when that is committed.

        Raises NotAdmitted, TooBusy, or what counting it alone raised.
        """
        place = _Place(report)
        with self._guard:
            leads = self._free > 0
            if leads:
                self._free -= 1
            else:
                self._queue.append(place)
        if not leads and not place.bell.acquire(timeout=self._wait_seconds):
            self._leave(place)
        if place.outcome is None:
            self._lead(place)
        return place.answer()

    def _leave(self, place: _Place) -> None:
        """Stop waiting; raises TooBusy unless it is our turn by now."""
        with self._guard:
            if place in self._queue:
                self._queue.remove(place)
            elif place.bell.acquire(blocking=False):
                return
        raise TooBusy("The report waited too long; send the same again.")

    def _lead(self, own: _Place) -> None:
        places = [own, *self._company(len(own.report.events))]
        outcomes: Sequence[BatchResult | BaseException] = ()
        try:
            outcomes = self._count([place.report for place in places], clock.now())
        except Exception as error:
            outcomes = [error] * len(places)
        finally:
            self._hand_over()
            # A thread that is being ended leaves no outcome; the others need not wait for it.
            lost = TooBusy("The report was not counted; send the same again.")
            for number, place in enumerate(places):
                place.outcome = outcomes[number] if outcomes else lost
                if place is not own:
                    place.bell.release()

    def _company(self, events: int) -> list[_Place]:
        """Those who wait, the longest first, as many as one transaction takes."""
        company = []
        with self._guard:
            while self._queue:
                events += len(self._queue[0].report.events)
                if events > MOST_EVENTS:
                    break
                company.append(self._queue.popleft())
        return company

    def _hand_over(self) -> None:
        with self._guard:
            if self._queue:
                self._queue.popleft().bell.release()
            else:
                self._free += 1


def count_together(reports: Sequence[Report], now: datetime) -> list[BatchResult | BaseException]:
    """Check the keys of reports and count the events of those admitted in one transaction.

    Where that fails by what one of them may hold, each is counted by itself, so that it alone
    gets its error. Raises when the database is away or busy; then nothing is known to be stored.
    """
    try:
        callers = admitted(reports, now=now)
        kind = UsageBatch.Kind.EVENTS
        deliveries = [
            Delivery(node=node, events=report.events, kind=kind, sequence=report.sequence)
            for report, node in zip(reports, callers, strict=True)
            if node is not None
        ]
        counted = iter(_counted(deliveries, now))
        return [NotAdmitted() if node is None else next(counted) for node in callers]
    finally:
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()  # to the pool, for the next leader


def _counted(deliveries: Sequence[Delivery], now: datetime) -> list[BatchResult | BaseException]:
    try:
        return list(ingest_together(deliveries, now=now)) if deliveries else []
    except Exception as error:
        if is_lost_connection(error) or is_contention(error) or len(deliveries) == 1:
            raise
        logger.warning("%d reports are counted one by one: %r", len(deliveries), error)
    return [_alone(delivery, now) for delivery in deliveries]


def _alone(delivery: Delivery, now: datetime) -> BatchResult | BaseException:
    try:
        return ingest_together([delivery], now=now)[0]
    except Exception as error:
        return error


def admitted(reports: Sequence[Report], *, now: datetime) -> list[Node | None]:
    """The node behind each report's token, None where it may not report; one query for all."""
    parts = {report.token: keys.split_token(report.token) for report in reports}
    public_ids = sorted({public_id for public_id, _secret in parts.values() if public_id})
    with fast_cursor() as cursor:
        rows = cursor.execute(CALLERS, {"public_ids": public_ids}, prepare=True).fetchall()
    found = {
        row[0]: (keys.StoredKey(*row[1:7]), Node(pk=row[7], name=row[8], sources=row[9]))
        for row in rows
    }
    nodes: dict[str, Node | None] = {}
    used = {}
    for token, (public_id, secret) in parts.items():
        key, node = found.get(public_id, (None, None))
        admits = keys.admits(key, secret=secret, now=now)
        nodes[token] = node if key is not None and admits and SCOPE in key.scopes else None
        if key is not None and admits:
            used[key.id] = key
    keys.note_use(used.values(), now=now)
    return [nodes[report.token] for report in reports]


take = Gathering(count_together).take
