"""The bundled trace: 19,366 real requests of one hour, stretched over a month."""

import csv
import gzip
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from usage.periods import cycle_end, cycle_start

BUNDLED = Path(__file__).parent / "data" / "AzureLLMInferenceTrace_conv.csv.gz"


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request: when in the month, tokens read, tokens written."""

    at: datetime
    context: int
    generated: int


def stretched(cycle: date, path: Path = BUNDLED) -> list[TraceRequest]:
    """The trace over the whole cycle: order and sizes kept, times in proportion, in whole
    microseconds."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        rows = [
            (_instant(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    start, end = cycle_start(cycle), cycle_end(cycle)
    microsecond = timedelta(microseconds=1)
    first = rows[0][0]
    # A second more than the trace lasts, so that its last request lies before the month's end.
    span = (rows[-1][0] - first + timedelta(seconds=1)) // microsecond
    month = (end - start) // microsecond
    return [
        TraceRequest(
            start + timedelta(microseconds=((at - first) // microsecond) * month // span),
            context,
            generated,
        )
        for at, context, generated in rows
    ]


def _instant(text: str) -> datetime:
    # Seven decimals of a second, one more than a datetime holds.
    return datetime.fromisoformat(text[:26]).replace(tzinfo=UTC)
