"""The proof by node and hour: what a node counted itself, against what was received, accepted,
paid for and invoiced.

Tokens here are raw ones, as engines count them (input with cached, output with reasoning); what
is paid with is millitokens (`_mt`). Events count in the hour of their use. A node's clock, and
requests that run over the full hour, move tokens to the hour beside; so hours show differences,
and it is the node's sum over the period that must agree.

What was amended, voided or rated again stands as it was reported; what that changed stands beside
it, in the hour of the event (`correction_`), and the sum of both as `corrected_`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from usage import periods, proof, sequences
from usage.models import Node
from usage.refused import Refused, refused_between

from .node_assurance_sql import (
    AMENDMENTS_BY_HOUR,
    AMENDMENTS_NAMED,
    AMENDMENTS_UNBALANCED,
    COUNTED,
    EVENTS_BY_HOUR,
    EVENTS_UNBALANCED,
    REPEATED,
    ROUNDED,
)
from .querying import fetch

MOST_DAYS = 31
MOST_EVENTS = 20  # named beside one difference
MOST_DIFFERENCES = 100
MOST_CORRECTIONS = 2_000  # named in one report

COUNTS = ("received", "accepted", "duplicate", "conflict", "rejected")
TOKENS = ("accepted_tokens", "rejected_tokens", "conflict_tokens")
AMOUNTS = ("accepted_mt", "debited_mt", "overage_mt", "uncovered_mt", "invoiced_mt")
COUNTED_BY_NODE = ("counted_tokens", "counted_rounding", "counted_requests", "resets")
CORRECTIONS = ("corrections", "correction_tokens", *(f"correction_{name}" for name in AMOUNTS))
# What the columns of the sums by hour are called in a report.
EVENT_NAMES = {"items": "accepted", "tokens": "accepted_tokens"}
AMENDMENT_NAMES = dict(zip(("items", "tokens", *AMOUNTS), CORRECTIONS, strict=True))

Row = dict[str, Any]
Place = tuple[int, datetime]  # a node and an hour


def assure_nodes(*, start: date, end: date) -> dict[str, Any]:
    """The report of the billing-zone days [start, end), at most MOST_DAYS of them.

    `nodes` and `hours` hold the same columns; `counted_tokens` and `difference_tokens` (counted -
    accepted - rejected) are None where the node told no counters; by `counted_rounding` the former
    may be off, and so the latter. `corrections` counts amendments;
    an hour names them under `amendments`. `differences` is empty if all that must agree does.
    Raises InvalidPeriod.
    """
    if not start < end <= start + timedelta(days=MOST_DAYS):
        raise periods.InvalidPeriod(f"Ask for 1 to {MOST_DAYS} days.")
    read = _read(start, end)
    hours = _hours(read.rows, read.refused)
    evidence = _evidence(read.refused)
    nodes = _nodes(hours, read.rounding)
    for (node_id, hour), row in hours.items():
        _conclude(row)
        row |= {"node": read.names.get(node_id, str(node_id)), "hour": hour.isoformat()}
        row["events"] = evidence[node_id, hour][:MOST_EVENTS] if row["difference_tokens"] else []
        row["amendments"] = read.amendments.get((node_id, hour), [])
    for node_id, row in nodes.items():
        _conclude(row)
        row |= {"node": read.names.get(node_id, str(node_id)), "gaps": read.gaps.get(node_id, [])}
    differences = [
        *_counted_otherwise(nodes, hours, evidence),
        *_not_paid_for(read.unbalanced, read.names),
        *_missing_batches(read.gaps, read.names),
    ]
    return {
        "from": start.isoformat(),
        "to": end.isoformat(),
        "nodes": list(nodes.values()),
        "hours": list(hours.values()),
        "differences": differences[:MOST_DIFFERENCES],
    }


@dataclass(frozen=True, slots=True)
class _Read:
    """What the tables say of a period, all of one snapshot."""

    refused: list[Refused]
    rows: list[Row]
    rounding: dict[int, int]  # by node, over all of the period
    unbalanced: list[Row]
    amendments: dict[Place, list[Row]]
    names: dict[int, str]
    gaps: dict[int, list[tuple[int, int]]]


def _read(start: date, end: date) -> _Read:
    about: dict[str, Any] = {
        "from": periods.day_start(start),
        "until": periods.day_start(end),
        "most": MOST_DIFFERENCES,
        "named": MOST_EVENTS,
        "most_named": MOST_CORRECTIONS,
    }
    with proof.snapshot() as cursor:
        rounded = fetch(ROUNDED, about)
        names = dict(Node.objects.values_list("id", "name"))
        return _Read(
            refused=refused_between(cursor, start=about["from"], end=about["until"]),
            rows=[
                *fetch(COUNTED, about),
                *(row for row in rounded if row["hour"] is not None),
                *(_renamed(row, EVENT_NAMES) for row in fetch(EVENTS_BY_HOUR, about)),
                *fetch(REPEATED, about),
                *(_renamed(row, AMENDMENT_NAMES) for row in fetch(AMENDMENTS_BY_HOUR, about)),
            ],
            rounding={
                row["node_id"]: row["counted_rounding"] for row in rounded if row["hour"] is None
            },
            unbalanced=[
                *fetch(EVENTS_UNBALANCED, about),
                *fetch(AMENDMENTS_UNBALANCED, about),
            ],
            amendments=_named(fetch(AMENDMENTS_NAMED, about)),
            names=names,
            gaps={node_id: sequences.sequence_of(node_id=node_id).gaps for node_id in names},
        )


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(column, column): value for column, value in row.items()}


def _empty() -> Row:
    names = (*COUNTED_BY_NODE, *COUNTS, *TOKENS, *AMOUNTS, *CORRECTIONS)
    return dict.fromkeys(names, 0) | {"samples": False}


def _hours(rows: Iterable[Row], refused: Iterable[Refused]) -> dict[Place, Row]:
    """The rows by node and hour, in this order."""
    found: dict[Place, Row] = defaultdict(_empty)
    for row in rows:
        place = found[row["node_id"], _hour(row["hour"])]
        place["samples"] |= "counted_tokens" in row
        for name, value in row.items():
            if name not in ("node_id", "hour"):
                place[name] += value
    for one in refused:
        place = found[one.node_id, _hour(one.at)]
        kind = "conflict" if one.code == "conflict" else "rejected"
        place[kind] += 1
        place[f"{kind}_tokens"] += one.tokens or 0
    return {key: found[key] for key in sorted(found)}


def _hour(at: datetime) -> datetime:
    return at.astimezone(periods.BILLING_ZONE).replace(minute=0, second=0, microsecond=0)


def _nodes(hours: Mapping[Place, Row], rounding: Mapping[int, int]) -> dict[int, Row]:
    total: dict[int, Row] = defaultdict(_empty)
    for (node_id, _hour), row in hours.items():
        for name, value in row.items():
            total[node_id][name] += value
    for node_id, row in total.items():
        # Not the sum of the hours: what one ends with, the next begins with.
        row["counted_rounding"] = rounding.get(node_id, 0)
    return dict(total)


def _conclude(row: Row) -> None:
    """What follows from the sums of a row."""
    row["received"] = sum(row[name] for name in COUNTS[1:])
    row["not_invoiced_mt"] = row["overage_mt"] - row["invoiced_mt"]
    row["corrected_tokens"] = row["accepted_tokens"] + row["correction_tokens"]
    for name in AMOUNTS:
        row[f"corrected_{name}"] = row[name] + row[f"correction_{name}"]
    if row.pop("samples"):
        known = row["accepted_tokens"] + row["rejected_tokens"]
        row["difference_tokens"] = row["counted_tokens"] - known
    else:
        row |= dict.fromkeys((*COUNTED_BY_NODE[:3], "difference_tokens"))


def _named(amendments: Iterable[Row]) -> dict[Place, list[Row]]:
    """Amendments by the node and hour of their events, the largest first."""
    found: dict[Place, list[Row]] = defaultdict(list)
    for one in amendments:
        told = {"amendment": one["id"], "event": one["event_id"]}
        rest = {name: one[name] for name in ("kind", "tokens", "mt")}
        found[one["node_id"], _hour(one["hour"])].append(told | rest)
    return dict(found)


def _evidence(refused: Iterable[Refused]) -> dict[Place, list[Row]]:
    """Events in quarantine by node and hour; those whose tokens nobody knows come first."""
    found: dict[Place, list[Row]] = defaultdict(list)
    for one in sorted(refused, key=lambda each: (each.tokens is not None, each.id)):
        found[one.node_id, _hour(one.at)].append(
            {"quarantined": one.id, "id": one.event_id, "code": one.code, "tokens": one.tokens}
        )
    return found


def _counted_otherwise(
    nodes: Mapping[int, Row], hours: Mapping[Place, Row], evidence: Mapping[Place, list[Row]]
) -> list[Row]:
    found = []
    for node_id, row in nodes.items():
        # What staff recounted explains a difference if it is as large, to the token or as far as
        # the engine told.
        if _agrees(row) or _agrees(row, row["correction_tokens"]):
            continue
        places = [place for place, one in hours.items() if place[0] == node_id]
        events = [event for place in places for event in evidence.get(place, [])]
        found.append(
            {
                "rule": "tokens counted by the node = accepted + rejected",
                "where": row["node"],
                "expected": row["counted_tokens"],
                "found": row["accepted_tokens"] + row["rejected_tokens"],
                "rounding": row["counted_rounding"],
                "hours": [hours[place]["hour"] for place in places if not _agrees(hours[place])],
                "events": sorted(events, key=lambda event: event["tokens"] is not None)[
                    :MOST_EVENTS
                ],
                "gaps": row["gaps"],
                "amendments": [one for place in places for one in hours[place]["amendments"]][
                    :MOST_EVENTS
                ],
            }
        )
    return found


def _agrees(row: Row, difference: int = 0) -> bool:
    """Whether what the node counted, if it did, differs by so much as far as it can be told."""
    if row["difference_tokens"] is None:
        return True
    return bool(abs(row["difference_tokens"] - difference) <= row["counted_rounding"])


def _not_paid_for(unbalanced: Iterable[Row], names: Mapping[int, str]) -> list[Row]:
    found = []
    for row in unbalanced:
        event, what = {"event": row["event_id"]}, "accepted"
        if row["id"] != row["event_id"]:
            event, what = event | {"amendment": row["id"]}, "correction"
        found.append(
            {
                "rule": f"{what} mt = debited + overage + uncovered",
                "where": f"{names.get(row['node_id'])} {_hour(row['hour']).isoformat()}",
                "expected": row["expected"],
                "found": row["found"],
                "events": [event],
            }
        )
    return found


def _missing_batches(
    numbers: Mapping[int, list[tuple[int, int]]], names: Mapping[int, str]
) -> list[Row]:
    return [
        {
            "rule": "every numbered batch arrived",
            "where": names[node_id],
            "expected": 0,
            "found": sum(last - first + 1 for first, last in gaps),
            "gaps": gaps,
            "events": [],
        }
        for node_id, gaps in numbers.items()
        if gaps
    ]
