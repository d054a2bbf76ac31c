"""What people read at the end: what was killed, what the clients saw, what is proven."""

from collections import Counter
from collections.abc import Sequence

from .journal import Journal
from .proving import Line

WIDTH = 56


def printed(kills: Counter[str], journal: Journal, lines: Sequence[Line]) -> str:
    """Three tables, one under the other."""
    load = {
        "requests": journal.counts["requests"],
        "events sent (each id once)": len(journal.sent),
        "events acknowledged": len(journal.acknowledged),
        "sessions' and orders' answers": len(journal.told),
        "resent after a doubt": journal.counts["resends"],
        "  of them stored before, the answer lost": journal.counts["stored unanswered"],
        "given up after a doubt": journal.counts["given up"],
    }
    return "\n".join(
        [
            *_counted("killed (SIGKILL)", dict(sorted(kills.items()))),
            *_counted("load", load),
            *_counted("errors seen by clients", dict(sorted(journal.errors.items()))),
            "",
            f"{'proof':<{WIDTH}}{'expected':>12}{'found':>12}",
            *map(_proven, lines),
        ]
    )


def _counted(title: str, counts: dict[str, int]) -> list[str]:
    rows = [f"  {name:<{WIDTH - 2}}{count:>12,}" for name, count in counts.items()]
    return ["", title, *(rows or ["  none"])]


def _proven(line: Line) -> str:
    found, expected = (_short(value) for value in (line.found, line.expected))
    row = f"  {line.what:<{WIDTH - 2}}{expected:>12}{found:>12}"
    return row if line.holds else f"{row}  <-- DIFFERS\n    {line.found}"


def _short(value: object) -> str:
    if isinstance(value, list | set):
        return "none" if not value else f"{len(value)} rows"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
