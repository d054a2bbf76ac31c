"""`python -m tests.bench.memory [--minutes 5]`: what each process holds while it takes in events.

Batches of 1,000 by sixteen clients, as in `ingest_copy`. Of PostgreSQL's processes, which come and
go with connections, it takes the largest, and of that what it does not share with the others: the
rest only tells which pages of the buffers it has seen.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
EVERY = 30  # seconds
# The last third of the time against the first, by their means: single values wait for the garbage
# collector. What is remembered of subscribers is nearly all there after the first minute.
FLAT = 1.1


def measure(*, minutes: float, say: Callable[[str], None]) -> dict[str, list[int]]:
    """MiB of each process every half minute, the first after half a minute."""
    from config import clock
    from tests.bench import bodies
    from tests.bench.ingest import BATCH, CLIENTS, PATH, site
    from tests.bench.load import drive, from_pool

    held: dict[str, list[int]] = {}
    with site() as at:
        for number in range(1, int(minutes * 60 / EVERY) + 1):
            requests = bodies.batches(
                PATH,
                bodies.uniform,
                size=BATCH,
                count=sys.maxsize,
                token=at.token,
                source=at.source,
                now=clock.now(),
            )
            load = drive(at.port, [from_pool(requests) for _ in range(CLIENTS)], seconds=EVERY)
            for name, mib in sorted(_held(at.pid).items()):
                held.setdefault(name, []).append(mib)
            now = ", ".join(f"{name} {values[-1]}" for name, values in held.items())
            say(f"  {number * EVERY} s, {load.rate(BATCH):,.0f} events/s: {now} MiB")
    return held


def _held(web: int) -> dict[str, int]:
    server = psutil.Process(web)
    found = {"web": server.memory_info().rss}
    for number, worker in enumerate(sorted(server.children(recursive=True), key=lambda p: p.pid)):
        found[f"web worker {number + 1}"] = worker.memory_info().rss
    largest = "largest of PostgreSQL"
    found[largest] = 0
    for process in psutil.process_iter(["name", "cmdline"]):
        try:
            if process.name() == "postgres" and _ours(process):
                found[largest] = max(found[largest], _own_memory(process))
        except psutil.Error:
            continue
    return {name: size // 2**20 for name, size in found.items()}


def _own_memory(process: psutil.Process) -> int:
    """Bytes that it shares with nobody; Linux only."""
    return sum(one.anonymous for one in process.memory_maps()) if psutil.LINUX else 0


def _ours(process: psutil.Process) -> bool:
    from django.conf import settings

    return Path(process.cwd()) == (settings.LAYOUT.postgres / "data")


def _growth(mib: list[int]) -> float:
    third = len(mib) // 3
    if not third:
        return 1
    return sum(mib[-third:]) / max(1, sum(mib[:third]))


def main() -> int:
    """Status 1 when something has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    var = Path(os.environ.get("VAR_DIR", ROOT / "var")).absolute() / "bench"
    os.environ |= {"VAR_DIR": str(var), "CLOCK_FILE": "", "DATABASE_URL": "", "BROKER_URL": ""}
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    import django

    django.setup()
    from config.local.servers import local_servers
    from tests.bench import recording
    from tests.bench.running import say

    with local_servers():
        held = measure(minutes=options.minutes, say=say)
    recording.record_memory(held, every=EVERY)
    grown = {name for name, mib in held.items() if _growth(mib) > FLAT}
    say(f"grown: {', '.join(sorted(grown))}" if grown else "flat")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
