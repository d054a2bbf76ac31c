"""The results: results.json for scripts, RESULTS.md for people; a run replaces what it measured."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from config import clock
from tests.bench import bodies, table
from tests.bench.figures import Benchmark, Figure

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
MEMORY = HERE / "memory.json"
PAGE = HERE / "RESULTS.md"

VERDICTS = {"aim": "reaches the aim", "must": "passes", "missed": "MISSES THE MUST"}

INTRODUCTION = """# What the benchmarks found

Each figure is the ratio of Tokenpack to a rival that was measured in the same run, the two in turn:
the median of n rounds, with the lowest and the highest. Events of a load are counted from when each
client has had an answer until one has nothing more to send. Client, web server and database share
one machine. Written by `make bench` (`QUICK=1`: shorter rounds, without growth_20m; `ONLY=key`:
one figure); a run replaces the figures it measured and leaves the others.

The whole pipeline counts: authentication, decoding, the key of every event, conflict check,
locks, the waterfall over 1 to 5 buckets, ledger, overage, batch and tallies, all committed with
fsync before the answer. The world: 100,000 subscribers, 15 % of the further buckets for one model
only, 21 % of the subscribers also in one of 2,001 pools, 2 % of the events from the day before.
Event ids are random (as vLLM makes them), the worst case for the index over the keys;
`BENCH_IDS=ordered` measures with ids that grow with time.

| key | median | min - max | n | must | aim | reached | ours | rival | measured |
|---|---|---|---|---|---|---|---|---|---|
"""


def record(benchmark: Benchmark, figure: Figure, *, quick: bool) -> None:
    """Put a figure into results.json and write the page anew."""
    results = _read()
    results[benchmark.key] = {
        "median": round(figure.median, 4),
        "min": round(min(figure.ratios), 4),
        "max": round(max(figure.ratios), 4),
        "n": len(figure.ratios),
        "must": benchmark.must,
        "aim": benchmark.aim,
        "lower_is_better": benchmark.lower,
        "unit": "ratio",
        "ours": round(median(figure.ours), 4),
        "rival": round(median(figure.rival), 4),
        "side_unit": figure.unit,
        "quick": quick,
        "measured_at": clock.now().astimezone(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "ids": "ordered" if bodies.ORDERED_IDS else "random",
        "notes": figure.notes,
    }
    ordered = {one.key: results[one.key] for one in table.BENCHMARKS if one.key in results}
    RESULTS.write_text(json.dumps(ordered, indent=2) + "\n")
    PAGE.write_text(_page(ordered))


def record_memory(held: dict[str, list[int]], *, every: int) -> None:
    """Keep what each process held (MiB, every so many seconds) and write the page anew."""
    memory = {
        "every_seconds": every,
        "mib": held,
        "measured_at": clock.now().astimezone(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
    }
    MEMORY.write_text(json.dumps(memory, indent=2) + "\n")
    PAGE.write_text(_page(_read()))


def verdicts(done: dict[str, Figure]) -> str:
    """One line a figure: what was reached of what was wanted."""
    lines = []
    for one in table.BENCHMARKS:
        figure = done.get(one.key)
        if figure is None:
            continue
        spread = f"{min(figure.ratios):.3f} - {max(figure.ratios):.3f}, n={len(figure.ratios)}"
        goals = f"must {one.must}, aim {one.aim}"
        verdict = VERDICTS[_reached(one, figure.median)]
        lines.append(f"{one.key:18} {figure.median:8.3f}  ({spread}; {goals})  {verdict}")
    return "\n".join(lines)


def _reached(benchmark: Benchmark, ratio: float) -> str:
    if benchmark.reached(ratio, benchmark.aim):
        return "aim"
    return "must" if benchmark.reached(ratio, benchmark.must) else "missed"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _read() -> dict[str, Any]:
    if not RESULTS.exists():
        return {}
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    processors = psutil.cpu_count()
    return (
        f"{processors} x {_processor()}, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _page(results: dict[str, Any]) -> str:
    rows = []
    for benchmark in (known for known in table.BENCHMARKS if known.key in results):
        key, one = benchmark.key, results[benchmark.key]
        sign = "<=" if one["lower_is_better"] else ">="
        at = datetime.fromisoformat(one["measured_at"])
        unit, quick = one["side_unit"], " (quick)" if one["quick"] else ""
        cells = [
            key,
            f"**{one['median']:.3g}**",
            f"{one['min']:.3g} - {one['max']:.3g}",
            str(one["n"]),
            f"{sign} {one['must']}",
            f"{sign} {one['aim']}",
            _reached(benchmark, one["median"]),
            f"{_plain(one['ours'])} {unit}",
            f"{_plain(one['rival'])} {unit}",
            f"{at:%Y-%m-%d %H:%M}{quick}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    about = [
        f"- `{one.key}`: {one.what}. Rival: {one.rival}."
        + "".join(f" {note[0].upper()}{note[1:]}." for note in results[one.key]["notes"])
        for one in table.BENCHMARKS
        if one.key in results
    ]
    machines = sorted({one["machine"] for one in results.values()})
    return (
        INTRODUCTION
        + "\n".join(rows)
        + "\n\nMachine: "
        + "; ".join(machines)
        + ".\n\n## What each compares\n\n"
        + "\n".join(about)
        + "\n"
        + _memory()
    )


def _memory() -> str:
    """The section on memory, once it was measured."""
    if not MEMORY.exists():
        return ""
    memory = json.loads(MEMORY.read_text())
    count = max(len(values) for values in memory["mib"].values())
    times = [(place + 1) * memory["every_seconds"] for place in range(count)]
    lines = [
        f"| {name} | {' | '.join(str(mib) for mib in values)} |"
        for name, values in memory["mib"].items()
    ]
    at = f"{datetime.fromisoformat(memory['measured_at']):%Y-%m-%d %H:%M}"
    return (
        "\n## Memory\n\nMiB that each process holds while batches of 1,000 come in by 16 clients, "
        f"after so many seconds (`python -m tests.bench.memory`, {at}).\nOf PostgreSQL: what the "
        "largest of its processes does not share.\n\n"
        f"| process | {' | '.join(f'{time} s' for time in times)} |\n"
        f"|---|{'---|' * count}\n" + "\n".join(lines) + "\n"
    )
