"""Reports of nodes on their way to be counted, small ones and large ones, each with others of its
kind: see gathering.

Small reports come without their keys checked: one statement checks those of a group. A large report
is read by the thread that received it, while the transaction before works. What of large reports
was set aside, since others held the subscribers, goes with the next ones; most are free by then.
What is held even then is counted by transactions beside, which wait: so the few subscribers that
everybody is after hold up nobody else.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from config.dberrors import is_contention, is_lost_connection

from .arriving import Delivery
from .batches import BatchResult
from .callers import NotAdmitted, admitted
from .database import hand_back
from .gathering import Gathering, Outcome
from .ingest import Portion, count_all, count_portions, ingest_together
from .remembering import Memory

SMALL_EVENTS = 50  # a report of more is large
MOST_SMALL_EVENTS = 2000  # in one transaction
MOST_LARGE_EVENTS = 4000  # unless one report alone has more
SCOPE = "usage:write"
memory = Memory()  # of this process
logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Counted = TypeVar("Counted")


class Report(msgspec.Struct):
    """What a caller sent: its bearer token, raw JSON events, its own number of the batch."""

    token: str
    events: Sequence[bytes]
    sequence: int | None = None


def count_small(reports: Sequence[Report], now: datetime) -> list[Outcome[BatchResult]]:
    """Check the keys of reports and count the events of those admitted in one transaction.

    Where that fails by what one of them may hold, each is counted by itself, so that it alone
    gets its error. Raises when the database is away or busy; then nothing is known to be stored.
    """
    try:
        callers = admitted([report.token for report in reports], scope=SCOPE, now=now)
        deliveries = [
            Delivery(node=node, events=report.events, sequence=report.sequence)
            for report, node in zip(reports, callers, strict=True)
            if node is not None
        ]
        told = iter(_or_each_alone(deliveries, lambda some: ingest_together(some, now=now)))
        return [NotAdmitted() if node is None else next(told) for node in callers]
    finally:
        hand_back()  # for the next leader


def count_large(portions: Sequence[Portion], now: datetime) -> list[Outcome[Portion]]:
    """Count what can be counted of large reports in one transaction; fails as `count_small`."""
    try:
        return _or_each_alone(
            portions, lambda some: count_portions(some, now=now, waits=False, memory=memory)
        )
    finally:
        hand_back()


def count_rest(portions: Sequence[Portion], now: datetime) -> list[Outcome[Portion]]:
    """Count what is left of large reports, all of it; fails as `count_small`."""
    try:
        return _or_each_alone(portions, lambda some: count_all(some, now=now, memory=memory))
    finally:
        hand_back()


def _or_each_alone(
    items: Sequence[Item], count: Callable[[Sequence[Item]], Sequence[Counted]]
) -> list[Counted | Exception]:
    """Count all at once; should one of them hold what the database refuses, one by one."""
    if not items:
        return []
    try:
        return list(count(items))
    except Exception as error:
        if is_lost_connection(error) or is_contention(error) or len(items) == 1:
            raise
        logger.warning("%d reports are counted one by one: %r", len(items), error)
    return [_alone(item, count) for item in items]


def _alone(item: Item, count: Callable[[Sequence[Item]], Sequence[Counted]]) -> Counted | Exception:
    try:
        return count([item])[0]
    except Exception as error:
        return error


take_small = Gathering(count_small, most_events=MOST_SMALL_EVENTS, pauses=True).take
_take_large = Gathering(count_large, most_events=MOST_LARGE_EVENTS).take
_take_rest = Gathering(count_rest, most_events=MOST_LARGE_EVENTS).take


def take_large(portion: Portion) -> BatchResult:
    """Count a large report, together with others; what was left of it once more, and then with
    what was left of others. Raises TooBusy, or what counting it raised."""
    portion = _take_large(portion)
    if portion.events:
        portion = _take_large(portion)
    if portion.events:
        portion = _take_rest(portion)
    return portion.counted()
