"""Ingest into a database that holds 20 million events, against one that holds none."""

import random
import shutil
from dataclasses import dataclass
from statistics import median

from django.conf import settings

from accounts.keys import issue_key
from accounts.models import ApiKey
from config import clock
from tests.bench import bodies, grown, world
from tests.bench.figures import Figure, Run, Skipped, interleave
from tests.bench.ingest import Site, check, send, site, use
from tests.bench.load import Script, drive

BIG, SMALL = "bench_big", "bench"
# After a checkpoint the first change of a page writes all of it to the journal. A server that
# takes in 20 million events in two months is hardly ever in that state, so warm it is.
WARM_UP = 6  # rounds long, in turn
READERS = 300  # subscribers who ask for their balance
FREE_GIB = 30  # what must be free: tables, indexes, their journal and the sorting

JOURNAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"


@dataclass
class Side:
    """One of the two databases behind its web server, with what it was measured to do."""

    site: Site
    events: float = 0
    journal: float = 0  # bytes

    def ingest(self, seconds: float) -> float:
        """Events per second."""
        before = self._journal()
        rate = send(self.site, bodies.uniform, seconds=seconds)
        self.journal += self._journal() - before
        self.events += rate * seconds
        return rate

    def look(self, tokens: list[str], seconds: float) -> float:
        """p99 of subscribers who look at their balance, four at a time, in ms."""

        def looking() -> Script:
            while True:
                yield bodies.get("/api/v1/me/balance", token=random.choice(tokens))

        load = drive(self.site.port, [looking() for _ in range(4)], seconds=seconds)
        return 1000 * load.percentile(0.99)

    def _journal(self) -> float:
        with world.connect("postgres") as connection:
            [(written,)] = connection.execute(JOURNAL).fetchall()
        return float(str(written))


def growth_20m(run: Run) -> Figure:
    """Two databases of one server, each behind its own web server, in turn."""
    free = shutil.disk_usage(settings.LAYOUT.var).free // 2**30
    if free < FREE_GIB:
        raise Skipped(f"needs {FREE_GIB} GiB of free disk, there are {free}")
    try:
        size = grown.make(BIG, run.say)
        run.say(f"  {size}")
        figure = against_none(run)
        figure.notes.append(f"the database: {size}")
        with world.connect(BIG) as connection:
            figure.notes.append(check(connection))
        return figure
    finally:
        world.drop(BIG)


def against_none(run: Run) -> Figure:
    """The figure, once the large database is there."""
    with site(BIG, fresh=False) as with_many, site(SMALL) as with_none:
        big, small = Side(with_many), Side(with_none)
        for _round in range(WARM_UP):
            for side in (big, small):
                side.ingest(run.seconds)
        big.events = big.journal = small.events = small.journal = 0
        figure = interleave(
            run,
            lambda: big.ingest(run.seconds),
            lambda: small.ingest(run.seconds),
            unit="events/s",
        )
        figure.notes.append(
            f"journal: {big.journal / big.events:,.0f} bytes an event with 20 million stored, "
            f"{small.journal / small.events:,.0f} with none"
        )
        figure.notes.append(balances(run, big, small))
    return figure


def balances(run: Run, big: Side, small: Side) -> str:
    """Says how long subscribers wait for their balance in either."""
    keys = {side.site.database: readers(side.site) for side in (big, small)}
    waits: dict[str, list[float]] = {name: [] for name in keys}
    for number in range(1 + run.rounds):
        for side in (big, small):
            name = side.site.database
            wait = side.look(keys[name], run.seconds)
            if number:  # the first round warms
                waits[name].append(wait)
    with_many, with_none = (median(waits[side.site.database]) for side in (big, small))
    text = (
        f"/me/balance of {READERS} subscribers, four at a time: p99 {with_many:.1f} ms with 20 "
        f"million events, {with_none:.1f} ms with none (medians of {run.rounds} rounds in turn)"
    )
    run.say(f"  {text}")
    return text


def readers(at: Site) -> list[str]:
    """Keys of subscribers, drawn alike for every database."""
    use(at.database)
    now, kind = clock.now(), ApiKey.Kind.SUBSCRIBER
    drawn = random.Random(7).sample(range(1, world.SUBSCRIBERS + 1), READERS)
    tokens = [issue_key(kind=kind, subscriber_id=one, now=now)[1] for one in drawn]
    use("postgres")
    return tokens
