"""Reports of many callers, counted together: one transaction for all that wait.

A request costs a commit and a dozen statements of its own, and two transactions at once are after
the same subscribers. So requests that come while a transaction is at work wait for it, and then
share the next: the first of them leads, counts all their events at once, and wakes each with its
own answer after the commit. A request that finds nobody else goes at once.

The others hold no connection while they wait. A process that is killed has answered nobody, so
everything may be sent again, and what was counted shows as duplicate.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Generic, Protocol, TypeAlias, TypeVar

from config import clock
from config.errors import DomainError

MOST_PAUSE_SECONDS = 0.02  # float: a pause, no amount
WAIT_SECONDS = 30


class Gathered(Protocol):
    """What is known of a report here: how many events it brings along."""

    @property
    def events(self) -> Sequence[object]: ...


Item = TypeVar("Item", bound=Gathered)
Answer = TypeVar("Answer")


class TooBusy(DomainError):
    """The report could not be counted in time."""

    code = "unavailable"
    status = 503
    title = "Service Unavailable"


@dataclass(slots=True, eq=False)
class _Place(Generic[Item, Answer]):
    """A report in the queue. Its thread sleeps on `bell`, which rings once: when there is an
    outcome, or when it is its turn to lead."""

    item: Item
    bell: Lock = field(default_factory=Lock)
    outcome: Answer | Exception | None = None

    def __post_init__(self) -> None:
        self.bell.acquire()

    def answer(self) -> Answer:
        assert self.outcome is not None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


Outcome: TypeAlias = Answer | Exception
Count: TypeAlias = Callable[[Sequence[Item], datetime], Sequence[Outcome[Answer]]]


class Gathering(Generic[Item, Answer]):
    """A queue whose head leads: it takes the others along, `most_events` in all. `count` counts
    reports together and says for each what became of it.

    With `pauses`, a leader waits for as many as there were before it, but no longer than half of
    what the last transaction took: who was just answered will mostly send the next report at once.
    """

    def __init__(
        self,
        count: Count[Item, Answer],
        *,
        most_events: int,
        pauses: bool = False,
        wait_seconds: int = WAIT_SECONDS,
    ) -> None:
        self._count = count
        self._most_events = most_events
        self._pauses = pauses
        self._wait_seconds = wait_seconds
        self._guard = Lock()
        self._busy = False
        self._queue: deque[_Place[Item, Answer]] = deque()
        self._pausing: _Place[Item, Answer] | None = None  # a leader who waits for company
        self._expected = 1  # as many as were there when the last transaction ended
        self._pause_until = self._pause_seconds = 0.0  # float: of the clock that only goes on

    def take(self, item: Item) -> Answer:
        """Count a report, alone or with others, and return when that is committed.

        Raises TooBusy, or what counting it alone raised.
        """
        place = _Place[Item, Answer](item)
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

    def _join(self, place: _Place[Item, Answer]) -> None:
        self._queue.append(place)
        if self._pausing is not None and len(self._queue) + 1 >= self._expected:
            self._pausing.bell.release()
            self._pausing = None

    def _leave(self, place: _Place[Item, Answer]) -> None:
        """Stop waiting; raises TooBusy unless there is an outcome or it is our turn by now."""
        with self._guard:
            if place in self._queue:
                self._queue.remove(place)
            elif place.bell.acquire(blocking=False):
                return
        raise TooBusy("The report waited too long; send the same again.")

    def _lead(self, own: _Place[Item, Answer]) -> None:
        if self._pauses:
            self._pause(own)
        places = [own, *self._company(len(own.item.events))]
        # A thread that is being ended leaves no outcome; the others need not wait for it.
        lost = TooBusy("The report was not counted; send the same again.")
        outcomes: Sequence[Outcome[Answer]] = [lost] * len(places)
        started = time.monotonic()
        try:
            outcomes = self._count([place.item for place in places], clock.now())
        except Exception as error:
            outcomes = [error] * len(places)
        finally:
            self._hand_over(len(places), time.monotonic() - started)
            for place, outcome in zip(places, outcomes, strict=True):
                place.outcome = outcome
                if place is not own:
                    place.bell.release()

    def _pause(self, own: _Place[Item, Answer]) -> None:
        """Wait a moment for those who were there before."""
        with self._guard:
            seconds = min(self._pause_until - time.monotonic(), self._pause_seconds)
            if seconds <= 0 or len(self._queue) + 1 >= self._expected:
                return
            self._pausing = own
        own.bell.acquire(timeout=seconds)
        with self._guard:
            self._pausing = None

    def _company(self, events: int) -> list[_Place[Item, Answer]]:
        """Those who wait, the longest first, as many as one transaction takes."""
        company = []
        with self._guard:
            while self._queue:
                events += len(self._queue[0].item.events)
                if events > self._most_events:
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
