"""Runs the chosen benchmarks one after the other on the benchmarks' own servers."""

import sys
import time
import traceback

from config.local.servers import local_servers
from tests.bench import recording, table
from tests.bench.figures import Benchmark, Figure, Run, Skipped

FULL_ROUNDS, FULL_SECONDS = 5, 5.0
QUICK_ROUNDS, QUICK_SECONDS = 3, 2.0


def run_all(*, only: str | None, quick: bool) -> int:
    """Measure, print and record; status 1 when a benchmark failed to run."""
    chosen = [
        one for one in table.BENCHMARKS if (one.key == only if only else one.quick or not quick)
    ]
    if not chosen:
        say(f"There is no benchmark {only!r}: {', '.join(one.key for one in table.BENCHMARKS)}.")
        return 1
    run = Run(
        rounds=QUICK_ROUNDS if quick else FULL_ROUNDS,
        seconds=QUICK_SECONDS if quick else FULL_SECONDS,
        quick=quick,
        say=say,
    )
    done: dict[str, Figure] = {}
    failed = []
    with local_servers():
        for benchmark in chosen:
            figure = _one(benchmark, run)
            if figure is not None and figure.ratios:
                done[benchmark.key] = figure
                recording.record(benchmark, figure, quick=quick)
            elif figure is None:
                failed.append(benchmark.key)
    say("\n" + recording.verdicts(done))
    if failed:
        say(f"Did not run: {', '.join(failed)}")
    return bool(failed)


def _one(benchmark: Benchmark, run: Run) -> Figure | None:
    """The figure; an empty one when it was skipped, None when it failed."""
    say(f"{benchmark.key}: {benchmark.what}")
    started = time.monotonic()
    try:
        figure = benchmark.measure(run)
    except Skipped as reason:
        say(f"  skipped: {reason}")
        return Figure()
    except Exception:
        traceback.print_exc()
        return None
    say(f"  {time.monotonic() - started:.0f} s")
    return figure


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True, file=sys.stderr)
