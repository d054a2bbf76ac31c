"""Quota create and release over HTTP by 8 clients, against the same statements by bare psycopg."""

import json
import multiprocessing
import random
import secrets
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor as Threads
from typing import Any

from django.conf import settings
from django.db import connection as ours
from django.db import transaction
from psycopg_pool import ConnectionPool

from config import clock
from tests.bench import world
from tests.bench.bodies import post
from tests.bench.figures import Figure, Run, interleave
from tests.bench.ingest import Site, site, use
from tests.bench.load import Load, Script, drive
from tests.bench.pool import FIRST_SEPARATE
from tests.bench.recorded import Recording, recorder, replay

CLIENTS, PROCESSES = 8, 2
RECORDED = 300  # subscribers that both sides draw from
# Standard tokens; so few that sessions cut off by the clock, which go on to hold them, never take
# up a whole bucket.
REQUESTED = 50
MODEL = "deepseek-v3.2"
PATH = "/api/v1/quota/sessions"
FIRST_ID = 10**15  # of recorded sessions: a number that nothing else has


def quota_psycopg(run: Run) -> Figure:
    """The figure is the ratio of the 99th percentiles; rates stand in the notes."""
    with site() as at:
        recordings = [record(at, FIRST_SEPARATE + 7 * n) for n in range(RECORDED)]
        subjects = [world.msisdn(FIRST_SEPARATE + 7 * n) for n in range(RECORDED)]
        loads: dict[str, list[Load]] = {"HTTP": [], "bare": []}

        def over_http() -> float:
            scripts = [client(at, subjects) for _ in range(CLIENTS)]
            loads["HTTP"].append(drive(at.port, scripts, seconds=run.seconds))
            return 1000 * loads["HTTP"][-1].percentile(0.99)

        def by_psycopg() -> float:
            loads["bare"].append(bare(at.database, recordings, run.seconds))
            return 1000 * loads["bare"][-1].percentile(0.99)

        over_http(), by_psycopg()
        figure = interleave(run, over_http, by_psycopg, unit="ms p99")
        for name, taken in loads.items():
            rate = sorted(load.rate() for load in taken[1:])[run.rounds // 2]
            p50 = sorted(1000 * load.percentile(0.5) for load in taken[1:])[run.rounds // 2]
            figure.notes.append(f"{name}: {rate:,.0f} calls/s, p50 {p50:.1f} ms")
            run.say(f"  {figure.notes[-1]}")
        calls = [len(load.latencies) for taken in loads.values() for load in taken]
        _check(at.database, releases=sum(calls) // 2, cut_off=CLIENTS * len(calls))
        return figure


# Sessions that are over, and what is held in the buckets beside what open sessions hold.
LEFT_BEHIND = """
    SELECT (SELECT COUNT(*) FROM usage_quotasession AS session WHERE session.state = 'released'),
           (SELECT COALESCE(SUM(bucket.reserved_mt), 0) FROM usage_bucket AS bucket)
           - (SELECT COALESCE(SUM(held.mt), 0)
                FROM usage_quotasession AS session, unnest(session.hold_mts) AS held (mt))
"""


def _check(database: str, *, releases: int, cut_off: int) -> None:
    """Both sides did the whole work: every session but those cut off by the clock is released."""
    with world.connect(database) as connection:
        row = connection.execute(LEFT_BEHIND).fetchone()
    assert row is not None
    released, unexplained = row
    assert isinstance(released, int) and released >= releases - cut_off, (released, releases)
    assert unexplained == 0, unexplained


def client(at: Site, subjects: list[str]) -> Script:
    """One node's worker: create a session, release it, and so on."""
    while True:
        ask = {
            "session": secrets.token_hex(12),
            "sequence": 0,
            "subject": random.choice(subjects),
            "model": MODEL,
            "requested": REQUESTED,
        }
        answer = json.loads((yield post(PATH, json.dumps(ask).encode(), token=at.token)))
        assert answer["result"] == "SUCCESS" and answer["granted"] == REQUESTED, answer
        path = f"{PATH}/{answer['ref']}/release"
        yield post(path, b'{"sequence":1}', token=at.token)


def record(at: Site, subscriber_id: int) -> Recording:
    """What create and release send for one subscriber; nothing of it stays."""
    from usage import quota
    from usage.models import Node, QuotaSession

    use(at.database)
    node = Node.objects.get(name="bench")
    recording = Recording(secrets.token_hex(12))
    calls: list[list[tuple[object, object]]] = [[], []]
    with transaction.atomic():
        with ours.cursor() as cursor:
            cursor.execute("SELECT setval('usage_quotasession_id_seq', %s)", [FIRST_ID])
        ask = quota.Ask(sequence=0, digest=b"0" * 16, requested=REQUESTED)
        about: dict[str, Any] = {"subject": world.msisdn(subscriber_id), "model": MODEL}
        with recorder(calls[0]):
            quota.create(node=node, name=recording.name, ask=ask, now=clock.now(), **about)
        session = QuotaSession.objects.get(session=recording.name)
        recording.ref, recording.session_id = session.ref, session.pk
        ask = quota.Ask(sequence=1, digest=b"1" * 16)
        with recorder(calls[1]):
            quota.release(node=node, ref=session.ref, ask=ask, now=clock.now())
        transaction.set_rollback(True)
    with ours.cursor() as cursor:
        cursor.execute("SELECT setval('usage_quotasession_id_seq', 1)")
    ours.close()
    recording.calls = calls
    return recording


def bare(database: str, recordings: list[Recording], seconds: float) -> Load:
    """Replay recordings by 8 threads of two processes, each process with a pool of connections."""
    own = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(PROCESSES, mp_context=own) as processes:
        about = (database, recordings, seconds, CLIENTS // PROCESSES)
        parts = [processes.submit(_process, *about) for _ in range(PROCESSES)]
        done = [part.result(timeout=seconds + 60) for part in parts]
    load = Load(seconds=max(taken for taken, _latencies in done))
    load.latencies = [one for _taken, latencies in done for one in latencies]
    return load


def _process(
    database: str, recordings: list[Recording], seconds: float, threads: int
) -> tuple[float, list[float]]:
    about = f"host={settings.LAYOUT.sockets} user=tokenpack dbname={database}"
    with ConnectionPool(about, min_size=threads, max_size=threads, open=True) as pool:
        pool.wait()
        started = time.perf_counter()

        def work(_number: int) -> list[float]:
            taken: list[float] = []
            while time.perf_counter() - started < seconds:
                with pool.connection() as connection:
                    taken += replay(connection, random.choice(recordings), time.perf_counter)
            return taken

        with Threads(threads) as workers:
            latencies = [one for part in workers.map(work, range(threads)) for one in part]
        return time.perf_counter() - started, latencies
