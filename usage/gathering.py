"""Small reports of many callers, counted together: one transaction for all that wait.

A request with one event costs a commit and a dozen statements of its own. So requests that come
while a transaction is at work wait for it, and then share the next: the first of them leads, asks
for all their keys at once, counts all their events at once, and wakes each with its own answer
after the commit. A request that finds nobody else goes at once.

The others hold no connection while they wait. A process that is killed has answered nobody, so
everything may be sent again, and what was counted shows as duplicate.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

from config import clock
from config.dberrors import is_contention, is_lost_connection
from config.errors import DomainError

from .arriving import Delivery
from .batches import BatchResult
from .callers import NotAdmitted, admitted
from .database import hand_back
from .ingest import ingest_together
from .models import UsageBatch

SMALL_EVENTS = 50  # more are worth a transaction of their own
MOST_EVENTS = 2000  # in one transaction
MOST_PAUSE_SECONDS = 0.02  # float: a pause, no amount
WAIT_SECONDS = 30
SCOPE = "usage:write"
logger = logging.getLogger(__name__)


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
    says for each what became of it.

    Who was just answered will mostly send the next report at once. So a leader waits for as many
    as there were, but no longer than half of what the last transaction took.
    """

    def __init__(self, count: Count, *, wait_seconds: int = WAIT_SECONDS) -> None:
        self._count = count
        self._wait_seconds = wait_seconds
        self._guard = Lock()
        self._busy = False
        self._queue: deque[_Place] = deque()
        self._pausing: _Place | None = None  # a leader who waits for company
        self._expected = 1  # as many as were there when the last transaction ended
        self._pause_until = self._pause_seconds = 0.0  # float: of the clock that only goes on

    def take(self, report: Report) -> BatchResult:
        """Count a report, alone or with others, and return when that is committed.

        Raises NotAdmitted, TooBusy, or what counting it alone raised.
        """
        place = _Place(report)
        with self._guard:
            leads = not self._busy
            if leads:
                self._busy = True
            else:
                self._join(place)
        if not leads and not place.bell.acquire(timeout=self._wait_seconds):
            self._leave(place)
        if place.outcome is None:
            self._lead(place)
        return place.answer()

    def _join(self, place: _Place) -> None:
        self._queue.append(place)
        if self._pausing is not None and len(self._queue) + 1 >= self._expected:
            self._pausing.bell.release()
            self._pausing = None

    def _leave(self, place: _Place) -> None:
        """Stop waiting; raises TooBusy unless there is an outcome or it is our turn by now."""
        with self._guard:
            if place in self._queue:
                self._queue.remove(place)
            elif place.bell.acquire(blocking=False):
                return
        raise TooBusy("The report waited too long; send the same again.")

    def _lead(self, own: _Place) -> None:
        self._pause(own)
        places = [own, *self._company(len(own.report.events))]
        outcomes: Sequence[BatchResult | BaseException] = ()
        started = time.monotonic()
        try:
            outcomes = self._count([place.report for place in places], clock.now())
        except Exception as error:
            outcomes = [error] * len(places)
        finally:
            self._hand_over(len(places), time.monotonic() - started)
            # A thread that is being ended leaves no outcome; the others need not wait for it.
            lost = TooBusy("The report was not counted; send the same again.")
            for number, place in enumerate(places):
                place.outcome = outcomes[number] if outcomes else lost
                if place is not own:
                    place.bell.release()

    def _pause(self, own: _Place) -> None:
        """Wait a moment for those who were there before."""
        with self._guard:
            seconds = min(self._pause_until - time.monotonic(), self._pause_seconds)
            if seconds <= 0 or len(self._queue) + 1 >= self._expected:
                return
            self._pausing = own
        own.bell.acquire(timeout=seconds)
        with self._guard:
            self._pausing = None

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

    def _hand_over(self, counted: int, seconds: float) -> None:  # float: a time taken
        """Let the next one lead; `counted` reports took `seconds`."""
        with self._guard:
            self._expected = counted + len(self._queue)
            self._pause_seconds = min(seconds / 2, MOST_PAUSE_SECONDS)
            self._pause_until = time.monotonic() + 2 * self._pause_seconds
            if self._queue:
                self._queue.popleft().bell.release()
            else:
                self._busy = False


def count_together(reports: Sequence[Report], now: datetime) -> list[BatchResult | BaseException]:
    """Check the keys of reports and count the events of those admitted in one transaction.

    Where that fails by what one of them may hold, each is counted by itself, so that it alone
    gets its error. Raises when the database is away or busy; then nothing is known to be stored.
    """
    try:
        callers = admitted([report.token for report in reports], scope=SCOPE, now=now)
        kind = UsageBatch.Kind.EVENTS
        deliveries = [
            Delivery(node=node, events=report.events, kind=kind, sequence=report.sequence)
            for report, node in zip(reports, callers, strict=True)
            if node is not None
        ]
        counted = iter(_counted(deliveries, now))
        return [NotAdmitted() if node is None else next(counted) for node in callers]
    finally:
        hand_back()  # for the next leader


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


take = Gathering(count_together).take
