"""Ingest over HTTP against COPY, against the usual way, and one event a request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from config import clock
from tests.bench import bodies, world
from tests.bench.bodies import Draw
from tests.bench.copying import Copying
from tests.bench.figures import Figure, Run, interleave
from tests.bench.load import Load, drive, from_pool
from tests.bench.web import serving

DATABASE = "bench"
PATH = "/api/v1/usage/events"
NAIVE_PATH = "/naive/events"
BATCH, CLIENTS = 1000, 16
NAIVE_CLIENTS = 4
WARM_UP_SECONDS = 15  # until most subscribers came twice: from then on they are remembered
SINGLE_CLIENTS = 64
EXPECTED_RATE = 60_000  # events per second that bodies are made for; more would leave clients idle
SINGLES = 8000


@dataclass(frozen=True)
class Site:
    """A served copy of the world with a node that may report to it."""

    port: int
    pid: int  # of the web server
    database: str
    token: str
    source: str

    def requests(self, path: str, draw: Draw, *, size: int, count: int) -> list[bytes]:
        """New events as ready requests."""
        about: dict[str, Any] = {"token": self.token, "source": self.source, "now": clock.now()}
        return list(bodies.batches(path, draw, size=size, count=count, **about))

    def memory_mib(self) -> int:
        """What the web server and its workers hold."""
        server = psutil.Process(self.pid)
        every = [server, *server.children(recursive=True)]
        return int(sum(one.memory_info().rss for one in every) // 2**20)


@contextmanager
def site(database: str = DATABASE, *, fresh: bool = True) -> Iterator[Site]:
    """Serve a fresh copy of the world, and drop it afterwards."""
    if fresh:
        world.copy_of_world(database)
    token = node_key(database)
    try:
        with serving(database) as (port, pid):
            yield Site(port, pid, database, token, "bench/n1")
    finally:
        if fresh:
            world.drop(database)


def node_key(database: str) -> str:
    """The key of a new node named `bench` in that database."""
    from django.db import connection

    from usage.models import Node
    from usage.nodes import add_key, create_node

    use(database)
    node = Node.objects.filter(name="bench").first()
    now = clock.now()
    token = add_key(node=node, now=now) if node else create_node(name="bench", now=now)[1]
    connection.close()
    return token


def use(database: str) -> None:
    """Let Django's connection of this process be one to that database."""
    from django.db import connection

    connection.close()
    connection.settings_dict["NAME"] = database


def send(
    at: Site,
    draw: Draw,
    *,
    seconds: float,
    path: str = PATH,
    size: int = BATCH,
    clients: int = CLIENTS,
) -> float:
    """Accepted events per second under load for about `seconds`."""
    count = int(EXPECTED_RATE * seconds) // size + clients if size > 1 else int(SINGLES * seconds)
    return accepted(
        drive_pool(at.port, at.requests(path, draw, size=size, count=count), clients, seconds)
    )


def drive_pool(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Let clients take from one pile of requests until it or the time is over."""
    pile = iter(requests)
    return drive(port, [from_pool(pile) for _ in range(clients)], seconds=seconds)


def accepted(load: Load) -> float:
    """Events per second while all clients were at work; every one that was sent must have been
    counted."""
    for body in load.answers:
        answer = json.loads(body)
        assert not answer["rejected"] and not answer["duplicate"], answer
    answers, seconds = load.at_work()
    events: int = sum(json.loads(body)["accepted"] for body in answers)
    return events / seconds


def against_copy(draw: Draw, run: Run) -> Figure:
    """Batches of 1,000 by several clients against COPY by one connection."""
    # A batch is under way for most of a second, and many are answered at once.
    seconds = 2 * run.seconds
    with site() as at, world.connect(at.database) as connection:
        copying = Copying(connection, draw)
        send(at, draw, seconds=WARM_UP_SECONDS)
        copying.rate(seconds=run.seconds / 2, now=clock.now())
        memory = at.memory_mib()
        figure = interleave(
            run,
            lambda: send(at, draw, seconds=seconds),
            lambda: copying.rate(seconds=run.seconds / 2, now=clock.now()),
            unit="events/s",
        )
        figure.notes.append(check(connection))
        figure.notes.append(
            f"the web processes held {memory} MiB before the rounds and {at.memory_mib()} after"
        )
    return figure


def ingest_copy(run: Run) -> Figure:
    """All 100,000 subscribers alike."""
    return against_copy(bodies.uniform, run)


def ingest_skewed(run: Run) -> Figure:
    """A few subscribers make most of the events."""
    return against_copy(bodies.Zipf(), run)


def ingest_naive(run: Run) -> Figure:
    """The same batches to the usual way; it gets one per client and is timed to its end."""
    clients = 2 if run.quick else NAIVE_CLIENTS  # as many as there are processors saturate it
    with site() as at:
        send(at, bodies.uniform, seconds=2 * run.seconds)

        def naive() -> float:
            requests = at.requests(NAIVE_PATH, bodies.uniform, size=BATCH, count=clients)
            return accepted(drive_pool(at.port, requests, clients, 120))

        return interleave(
            run, lambda: send(at, bodies.uniform, seconds=run.seconds), naive, unit="events/s"
        )


def single_rate(at: Site, seconds: float, path: str = PATH) -> float:
    """One event a request, 64 clients."""
    return send(at, bodies.uniform, seconds=seconds, path=path, size=1, clients=SINGLE_CLIENTS)


def single_naive(run: Run) -> Figure:
    """One event a request, 64 clients, to either."""
    with site() as at:
        single_rate(at, run.seconds)
        single_rate(at, run.seconds, NAIVE_PATH)
        return interleave(
            run,
            lambda: single_rate(at, run.seconds),
            lambda: single_rate(at, run.seconds, NAIVE_PATH),
            unit="events/s",
        )


# What the batches say, against what is stored.
STORED = """
    SELECT (SELECT COALESCE(SUM(batch.accepted), 0) FROM usage_usagebatch AS batch),
           (SELECT COUNT(*) FROM usage_usageevent),
           (SELECT COUNT(*) FROM usage_eventkey),
           (SELECT COALESCE(SUM(batch.debited_mt), 0) FROM usage_usagebatch AS batch),
           (SELECT COALESCE(-SUM(entry.amount_mt), 0)
              FROM usage_ledgerentry AS entry WHERE entry.kind = 'debit'),
           (SELECT SUM(bucket.granted_mt - bucket.remaining_mt) FROM usage_bucket AS bucket)
"""


def check(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    """Everything that was acknowledged is stored once and paid for; says how much it was."""
    row = connection.execute(STORED).fetchone()
    assert row is not None
    events, stored, keys, debited, ledger, moved = row
    assert events == stored == keys, (events, stored, keys)
    assert debited == ledger == moved, (debited, ledger, moved)
    return f"{stored:,} events counted, keyed and paid exactly once"
