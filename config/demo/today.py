"""After the month: the nodes go on, so that portal and admin have something of today to show."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from usage.periods import cycle_of, cycle_start

from .cast import NODES, Member, Turn
from .client import NodeClient
from .events import event_of
from .replay import Progress

REQUESTS = 1000
MOMENT = timedelta(minutes=1)


def go_on(
    *, base: str, batches: Sequence[Sequence[Turn]], progress: Progress, now: datetime
) -> None:
    """Report requests of the trace again, as requests of the running month up to now.

    They have names of their own, so a second demo finds them counted.
    """
    turns = [turn for turns in batches for turn in turns if "pack" not in turn.member.offer]
    chosen = turns[:: len(turns) // REQUESTS][:REQUESTS]
    start = cycle_start(cycle_of(now))
    step = (now - MOMENT - start) // len(chosen)
    for node, name in enumerate(NODES):
        events = []
        for place, turn in enumerate(chosen):
            if place % len(NODES) == node:
                event = event_of(turn, node=node, subject=turn.member.msisdn)
                event["id"] = f"after-{turn.number:07d}"
                event["time"] = (start + step * place).isoformat()
                events.append(event)
        NodeClient(base, progress.keys[name]).report(events)


def to_sign_in_as(batches: Sequence[Sequence[Turn]], exhausted: Sequence[str]) -> Member:
    """The member with the most requests among those who still have tokens of a plan."""
    counts: dict[Member, int] = {}
    for turns in batches:
        for turn in turns:
            member = turn.member
            if member.offer.startswith("token") and member.msisdn not in exhausted:
                counts[member] = counts.get(member, 0) + 1
    return max(counts, key=lambda member: (counts[member], member.msisdn))
