"""Ingest into a database that holds 20 million events, against one that holds none."""

import random
import shutil
from dataclasses import dataclass

from django.conf import settings

from accounts.keys import issue_key
from accounts.models import ApiKey
from config import clock
from tests.bench import bodies, grown, world
from tests.bench.figures import Figure, Run, Skipped
from tests.bench.ingest import (
    BATCH,
    CLIENTS,
    PATH,
    Site,
    accepted,
    check,
    drive_pool,
    site,
    use,
)
from tests.bench.load import GIVE_UP_SECONDS, Script, drive, percentile

BIG, SMALL = "bench_big", "bench"
# The difference is small beside what else goes on in a machine, so the sides change often.
ROUNDS, TURNS, BATCHES = 9, 4, 12  # turns a round, batches a turn
# After a checkpoint the first change of a page writes all of it to the journal, which the large
# index of random keys feels for its first 300,000 events. Under load that is a minute of every half
# hour, so it is past before the rounds begin; a note says what it was like.
WARM_UP, FIRST = 350, 50  # batches
READERS = 300  # subscribers who ask for their balance
WARM_LOOKS, LOOKS = 4, 24  # seconds of either
FREE_GIB = 30  # what must be free: tables, indexes, their journal and the sorting

JOURNAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"


@dataclass
class Side:
    """One of the two databases behind its web server, with what it was measured to do."""

    site: Site
    events: float = 0
    journal: float = 0  # bytes

    def ingest(self, batches: int = BATCHES) -> float:
        """Seconds that they took."""
        requests = self.site.requests(PATH, bodies.uniform, size=BATCH, count=batches)
        before = journal()
        load = drive_pool(self.site.port, requests, CLIENTS, GIVE_UP_SECONDS)
        self.journal += journal() - before
        self.events += BATCH * batches
        accepted(load)
        return load.seconds

    def look(self, tokens: list[str]) -> list[float]:
        """Seconds that subscribers wait for their balance, four at a time."""

        def looking() -> Script:
            while True:
                yield bodies.get("/api/v1/me/balance", token=random.choice(tokens))

        return drive(self.site.port, [looking() for _ in range(4)], seconds=1).latencies


def journal() -> float:
    """Bytes that the server has written to its journal so far."""
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
        firsts = small.ingest(FIRST) / big.ingest(FIRST)
        for side in (big, small):
            side.ingest(WARM_UP - FIRST)
        cold = written(big, small)
        figure = in_turn(run, big, small)
        figure.notes.append(
            f"journal: {written(big, small)}; in the {WARM_UP * BATCH:,} events after a "
            f"checkpoint {cold}, the first {FIRST * BATCH:,} of them at {firsts:.2f} of the "
            "rival's rate"
        )
        figure.notes.append(balances(run, big, small))
    return figure


def in_turn(run: Run, big: Side, small: Side) -> Figure:
    """A ratio each round, of turns that follow one another closely."""
    big.events = big.journal = small.events = small.journal = 0
    figure = Figure(unit="events/s")
    for number in range(ROUNDS):
        seconds = {id(big): 0.0, id(small): 0.0}
        for turn in range(TURNS):
            for side in (big, small) if (number + turn) % 2 else (small, big):
                seconds[id(side)] += side.ingest()
        own, theirs = (TURNS * BATCHES * BATCH / seconds[id(side)] for side in (big, small))
        figure.ours.append(own)
        figure.rival.append(theirs)
        figure.ratios.append(own / theirs)
        run.say(f"  round {number + 1}: {own:,.0f} against {theirs:,.0f}: {own / theirs:.3f}")
    return figure


def written(big: Side, small: Side) -> str:
    """What either wrote to the journal."""
    return (
        f"{big.journal / big.events:,.0f} bytes an event with 20 million stored, "
        f"{small.journal / small.events:,.0f} with none"
    )


def balances(run: Run, big: Side, small: Side) -> str:
    """Says how long subscribers wait for their balance in either."""
    tokens = {id(side): readers(side.site) for side in (big, small)}
    waits: dict[int, list[float]] = {id(big): [], id(small): []}
    for number in range(-WARM_LOOKS, LOOKS):
        for side in (big, small) if number % 2 else (small, big):
            waited = side.look(tokens[id(side)])
            if number >= 0:
                waits[id(side)] += waited
    with_many, with_none = (1000 * percentile(waits[id(side)], 0.99) for side in (big, small))
    text = (
        f"/me/balance of {READERS} subscribers, four at a time: p99 {with_many:.1f} ms with 20 "
        f"million events, {with_none:.1f} ms with none ({LOOKS} turns of a second each)"
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
