"""`python -m tests.bench.profile [--events 1000] [--batches 20]`: where a batch's time goes.

One process ingests batches into a copy of the world, with a clock around every statement and
around the steps of the activity. Times of steps are without those of the steps inside them.
"""

import argparse
import functools
import gc
import importlib
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]

# Modules whose functions are timed; what a module no longer has is left out.
STEPS = {
    "usage.ingest": (
        "read_events arrive lock_owners _set_aside claim judge read_own mark_late write_events pay "
        "lock_shared record block _tally add_batches quarantine"
    ),
    "usage.arriving": "_of_own_sources _resolve",
    "usage.charging": (
        "burn priced_totals _price _write _write_overage _write_pool_usage add_cycle_overage"
    ),
    "usage.locking": "_lock_profiles lock_pools _memberships _read_pool_usage _open_buckets",
    "usage.enforcement": "settle",
}


class Clocks:
    """Exclusive seconds and calls by name; one stack, since one thread works."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inside: list[float] = []
        self._collecting = 0.0

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count the time inside under a name, but not what inner measures take."""
        self._inside.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            within = self._inside.pop()
            self.seconds[name] += taken - within
            self.calls[name] += 1
            if self._inside:
                self._inside[-1] += taken

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with a clock around it."""

        inside, seconds, calls, clock = self._inside, self.seconds, self.calls, time.perf_counter

        # Written out, since a context manager would cost more than what some steps take.
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inside.append(0.0)
            started = clock()
            try:
                return function(*args, **kwargs)
            finally:
                taken = clock() - started
                seconds[name] += taken - inside.pop()
                calls[name] += 1
                if inside:
                    inside[-1] += taken

        return timed

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """A callback of the garbage collector, whose time is nobody's else."""
        if phase == "start":
            self._inside.append(0.0)
            self._collecting = time.perf_counter()
            return
        taken = time.perf_counter() - self._collecting
        self._inside.pop()
        name = f"garbage collection, generation {info['generation']}"
        self.seconds[name] += taken
        self.calls[name] += 1
        if self._inside:
            self._inside[-1] += taken


class Processors:
    """Processor time of this process and of its PostgreSQL backend: unlike the clocks above it
    does not grow when other programs want the processors too."""

    def __init__(self) -> None:
        from django.db import connection

        connection.ensure_connection()
        self._backend = psutil.Process(connection.connection.info.backend_pid)
        self.python = self.backend = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count what is used inside."""
        python, backend = self._now()
        yield
        used = self._now()
        self.python += used[0] - python
        self.backend += used[1] - backend

    def _now(self) -> tuple[float, float]:
        path = Path(f"/proc/{self._backend.pid}/schedstat")
        used = self._backend.cpu_times()
        exact = int(path.read_text().split()[0]) / 1e9 if path.exists() else used.user + used.system
        return time.process_time(), exact

    def told(self, batches: int) -> str:
        """Milliseconds a batch."""
        return (
            f"processor time a batch: {1000 * self.python / batches:.1f} ms of Python, "
            f"{1000 * self.backend / batches:.1f} ms of PostgreSQL"
        )


def statement_name(query: object) -> str:
    """A statement by its verb and its first table of ours, as in `SQL SELECT usage_bucket`."""
    text = query.decode() if isinstance(query, bytes) else str(query)
    verb = text.split(None, 1)[0].upper() if text.strip() else "?"
    found = re.search(r"\b(?:usage|accounts|plans|django)_[a-z_]+", text)
    return f"SQL {verb} {found[0] if found else ' '.join(text.split())[:40]}"


def install(clocks: Clocks) -> None:
    """Put clocks around the steps, every statement, COPY and commit."""
    import psycopg

    for module_name, names in STEPS.items():
        module = importlib.import_module(module_name)
        for name in names.split():
            if hasattr(module, name):
                label = f"{module_name.removeprefix('usage.')}.{name}"
                setattr(module, name, clocks.wrap(label, getattr(module, name)))
    execute = psycopg.Cursor.execute

    def timed_execute(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        with clocks.measure(statement_name(query)):
            return execute(self, query, *args, **kwargs)

    copy = psycopg.Cursor.copy

    @contextmanager
    def timed_copy(self: Any, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with (
            clocks.measure(statement_name(statement)),
            copy(self, statement, *args, **kwargs) as it,
        ):
            yield it

    gc.callbacks.append(clocks.collected)
    psycopg.Cursor.execute = timed_execute  # type: ignore[method-assign]
    psycopg.Cursor.copy = timed_copy  # type: ignore[method-assign]
    psycopg.Connection.commit = clocks.wrap(  # type: ignore[method-assign]
        "SQL COMMIT", psycopg.Connection.commit
    )


def run(*, events: int, batches: int, warm_up: int, clocked: bool, pool: bool) -> None:
    """Ingest in this process and print milliseconds a batch, the dearest first."""
    from config import clock
    from config.local.servers import local_servers
    from tests.bench import bodies, world
    from tests.bench.ingest import node_key, use

    with local_servers():
        world.copy_of_world("bench_profile")
        node_key("bench_profile")
        use("bench_profile")
        from usage.decoding import split_body
        from usage.ingest import ingest
        from usage.models import Node

        node = Node.objects.get(name="bench")
        draw = bodies.within(1, world.BIG_POOL) if pool else bodies.uniform
        clocks = Clocks()
        processors = Processors()
        media = "application/json"
        for number in range(warm_up + batches):
            if number == warm_up:
                if clocked:
                    install(clocks)
                # As the web process does.
                gc.collect()
                gc.freeze()
                gc.set_threshold(50_000, 20, 50)
                ingest = importlib.import_module("usage.ingest").ingest
            texts = bodies.events(draw, events, source="bench/n1", now=clock.now())
            body = f"[{','.join(texts)}]".encode()
            with processors.measure(), clocks.measure("everything else"):
                split = split_body(body=body, content_type=media, encoding="")
                result = ingest(node=node, events=split, now=clock.now())
            assert result.tally.accepted == events
            if number < warm_up:
                clocks.seconds.clear()
                clocks.calls.clear()
                processors = Processors()
        if clocked:
            show(clocks, batches)
        print(processors.told(batches))
        from django.db import connection

        connection.close()
        world.drop("bench_profile")


def show(clocks: Clocks, batches: int) -> None:
    """The table, with what the database and what Python takes of it."""
    total = sum(clocks.seconds.values())
    of_sql = sum(taken for name, taken in clocks.seconds.items() if name.startswith("SQL"))
    print(
        f"one batch: {1000 * total / batches:.1f} ms, of it {1000 * of_sql / batches:.1f} in "
        f"statements (waiting for PostgreSQL, sending and reading)"
    )
    for name, taken in sorted(clocks.seconds.items(), key=lambda item: -item[1]):
        each = 1000 * taken / batches
        if each >= 0.05:
            print(f"{each:8.2f} ms  {clocks.calls[name] / batches:7.1f} x  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=40)
    parser.add_argument("--pool", action="store_true", help="members of one pool alone")
    parser.add_argument("--no-clocks", action="store_true", help="tell the processor time alone")
    options = parser.parse_args()
    var = Path(os.environ.get("VAR_DIR", ROOT / "var")).absolute() / "bench"
    os.environ |= {"VAR_DIR": str(var), "CLOCK_FILE": "", "DATABASE_URL": "", "BROKER_URL": ""}
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    import django

    django.setup()
    run(
        events=options.events,
        batches=options.batches,
        warm_up=options.warm_up,
        clocked=not options.no_clocks,
        pool=options.pool,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
