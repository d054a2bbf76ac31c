"""Subscribers divided among the web processes of one machine: each has a lane and charges its own.

Two transactions that concern the same subscriber or pool go one after the other. So whoever
receives a large report counts only what is of its own lane, and hands each other part over to the
process whose lane that is. It is a matter of speed alone: whoever counts takes the same locks, and
a part that nobody takes over is counted where it is.

Members of a pool belong together, unless they are so busy that one lane could not keep up. Who is
one is only known to whoever counted; it says so, and they are sent to their pool's lane from then
on.
"""

import fcntl
import hashlib
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
from django.conf import settings

from config import clock

from .arriving import Delivery
from .batches import BatchResult
from .decoding import UNREADABLE
from .ingest import portion_of
from .lines import Line, LineBroken, Lines, listening
from .models import Node
from .receiving import take_large

MESSAGES = 1  # the version of Part and Told
LARGE_POOL = 50  # members in one part of a report: one lane alone would be too slow for them
MOST_MOVED = 100_000  # subjects remembered to be of another lane
JOIN_SECONDS = 1
logger = logging.getLogger(__name__)


class Part(msgspec.Struct, array_like=True):
    """Events of a report and where in it they stood, with what its node may report."""

    node_id: int
    node_name: str
    sources: list[str]
    positions: Sequence[int]
    events: Sequence[bytes]

    def delivery(self) -> Delivery:
        node = Node(pk=self.node_id, name=self.node_name, sources=self.sources)
        return Delivery(node, self.events, positions=self.positions)


class Told(msgspec.Struct, array_like=True):
    """What became of a part, None if it failed, and which subjects belong elsewhere: (subject,
    lane)."""

    result: BatchResult | None
    moved: list[tuple[str, int]] = []


class _Named(msgspec.Struct, gc=False):
    subject: str


_named = msgspec.json.Decoder(_Named)
_read_part = msgspec.msgpack.Decoder(Part)
_read_told = msgspec.msgpack.Decoder(Told)
_encode = msgspec.msgpack.Encoder().encode


class Lanes:
    """The lanes of a machine, `count` in all, as one of its processes sees them."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._lines = [Lines(self._socket(lane)) for lane in range(count)]
        self._moved: dict[str, int] = {}
        self._silent: set[int] = set()  # lanes of which it is logged that nobody takes their parts
        self._guard = threading.Lock()
        self._held = ExitStack()  # the lock of our lane, and who listens there
        self._try_again = 0.0  # float: of the clock that only goes on
        self.number: int | None = None

    def join(self) -> None:
        """Take a lane that no living process has, if there is one."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for lane in range(self._count):
            lock = self._socket(lane).with_suffix(".lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            self._held.enter_context(lock)
            self._held.enter_context(listening(self._socket(lane), self._answer))
            self.number = lane
            return

    def leave(self) -> None:
        """Let another process have our lane."""
        self.number = None
        self._held.close()
        for lines in self._lines:
            lines.close()

    def take(self, delivery: Delivery, *, now: datetime) -> BatchResult:
        """Count a large report, each part where it belongs. Raises what counting here raises."""
        if self.number is None:
            self._join_later()
        others = self._divide(delivery)
        own = others.pop(self.number, None)
        results = []
        if delivery.sequence is not None:
            # Its number is stored with what is counted last, and that is done here.
            last = own or others.popitem()[1]
            results = self._count_there(others, None, now)
            own, others = msgspec.structs.replace(last, sequence=delivery.sequence), {}
        results += self._count_there(others, own, now)
        return reduce(BatchResult.and_later, results)

    def _count_there(
        self, parts: dict[int | None, Delivery], own: Delivery | None, now: datetime
    ) -> list[BatchResult]:
        """Hand parts over, count our own meanwhile, and then whatever nobody has counted."""
        results = []
        with ExitStack() as lent:
            asked = [(part, lane, self._ask(lent, lane, part)) for lane, part in parts.items()]
            if own is not None:
                results.append(self._count_here(own, now))
            for part, lane, line in asked:
                told = self._told(line, lane) if line is not None else None
                results.append(told or self._count_here(part, now))
        return results

    def _join_later(self) -> None:
        """A process that follows a dead one may have come before that was gone."""
        with self._guard:
            if self.number is None and self._count and time.monotonic() > self._try_again:
                self._try_again = time.monotonic() + JOIN_SECONDS
                self.join()

    def _divide(self, delivery: Delivery) -> dict[int | None, Delivery]:
        """The parts of a report by lane; what names nobody is ours."""
        if self._count < 2:
            return {self.number: delivery}
        moved, decode = self._moved.get, _named.decode
        places: dict[int | None, list[int]] = defaultdict(list)
        for position, raw in enumerate(delivery.events):
            lane: int | None
            try:
                subject = decode(raw).subject
            except UNREADABLE:
                lane = self.number
            else:
                lane = moved(subject)
                if lane is None:
                    lane = self._lane_of(subject)
            places[lane].append(position)
        if len(places) == 1:
            return {lane: delivery for lane in places}
        return {lane: self._part(delivery, some) for lane, some in places.items()}

    @staticmethod
    def _part(delivery: Delivery, positions: list[int]) -> Delivery:
        events = [delivery.events[position] for position in positions]
        return msgspec.structs.replace(delivery, events=events, positions=positions, sequence=None)

    def _ask(self, lent: ExitStack, lane: int | None, part: Delivery) -> Line | None:
        """Hand a part over; None where nobody takes it."""
        if lane is None:  # its events name nobody, and we had no lane when it was divided
            return None
        node = part.node
        positions = range(len(part.events)) if part.positions is None else part.positions
        message = Part(node.pk, node.name, node.sources, [*positions], part.events)
        try:
            line = lent.enter_context(self._lines[lane].one())
            line.ask(_encode(message))
        except LineBroken as broken:
            if lane not in self._silent:
                self._silent.add(lane)
                logger.warning("nobody takes the parts of lane %s: %s", lane, broken)
            return None
        self._silent.discard(lane)
        return line

    def _told(self, line: Line, lane: int | None) -> BatchResult | None:
        try:
            told = _read_told.decode(line.answer())
        except (LineBroken, msgspec.MsgspecError) as error:
            logger.warning("lane %s did not answer: %s", lane, error)
            return None
        self._learn(told.moved)
        return told.result

    def _answer(self, message: bytes) -> bytes:
        """Count a part that another process hands over."""
        try:
            now = clock.now()
            result = self._count_here(_read_part.decode(message).delivery(), now)
        except Exception as error:
            # Whoever handed it over counts it by itself, and tells its caller what came of that.
            logger.warning("a part of a report was not counted: %r", error)
            return _encode(Told(None))
        for refusal in result.refusals:
            refusal.raw = b""
        moved = self._elsewhere(result)
        result.pooled = []
        return _encode(Told(result, moved))

    def _count_here(self, part: Delivery, now: datetime) -> BatchResult:
        result = take_large(portion_of(part, now=now))
        self._learn(self._elsewhere(result))
        return result

    def _elsewhere(self, result: BatchResult) -> list[tuple[str, int]]:
        """Members whose pool is of another lane, or too large for one."""
        if self._count < 2:
            return []
        pooled = set(result.pooled)
        members = Counter(pool_id for _subject, pool_id in pooled)
        large = {pool_id for pool_id, count in members.items() if count >= LARGE_POOL}
        lanes = (
            (subject, (self._lane_of(subject) if pool_id in large else pool_id % self._count))
            for subject, pool_id in pooled
        )
        return [(subject, lane) for subject, lane in lanes if lane != self.number]

    def _lane_of(self, subject: str) -> int:
        """The lane of a subject that is not known to belong elsewhere."""
        return crc32(subject.encode()) % self._count

    def _learn(self, moved: Iterable[tuple[str, int]]) -> None:
        if len(self._moved) > MOST_MOVED:
            self._moved.clear()
        self._moved.update(moved)

    def _socket(self, lane: int) -> Path:
        return self._folder / f"{lane}.sock"


ALONE = Lanes(Path(), 0)  # a process that counts everything


def of_this_machine(folder: Path) -> Lanes:
    """The lanes of the processes that serve the same database and meet in the same folder, which
    is closed to others."""
    database = settings.DATABASES["default"]
    about: list[Any] = [MESSAGES, settings.WEB_LANES, settings.REGION]
    about += [database.get(name) for name in ("HOST", "PORT", "NAME", "USER")]
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:12]
    lanes = Lanes(folder / digest, settings.WEB_LANES)
    lanes.join()
    return lanes
