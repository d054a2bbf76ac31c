"""What nodes claimed in events that were not counted: read again from the bodies in quarantine."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.conf import settings

from .database import Cursor
from .decoding import UNREADABLE, Envelope
from .identity import counted_of
from .normalising import UnreadableUsage, normalise, usage_of
from .periods import InvalidPeriod

MOST = 100_000  # of one question; a longer period is asked in parts

# Evidence that stands for itself: neither replayed since, nor the copy that a replay left. A
# refusal repeated by the node counts once, its first time.
STANDING = """
    SELECT DISTINCT ON (held.node_id, held.code = 'conflict',
                        CASE WHEN held.event_id = '' THEN held.id::text
                             ELSE held.source || ' ' || held.event_id END)
           held.id, held.node_id, held.source, held.event_id, held.code, held.body,
           held.received_at
      FROM usage_quarantinedevent AS held
      JOIN usage_usagebatch AS batch ON batch.id = held.batch_id AND batch.kind <> 'replay'
     WHERE held.received_at >= %(since)s AND held.received_at < %(until)s
       AND held.state <> 'replayed'
     ORDER BY held.node_id, held.code = 'conflict',
              CASE WHEN held.event_id = '' THEN held.id::text
                   ELSE held.source || ' ' || held.event_id END,
              held.id
     LIMIT %(limit)s
"""

ENVELOPE = msgspec.json.Decoder(Envelope)
# The node's clock is not to be believed in these, so they count when they came.
UNTIMED = {"in_future", "too_old"}
CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Refused:
    """An event in quarantine: when it was used, and its raw tokens (None: it does not read)."""

    id: int
    node_id: int
    event_id: str
    code: str
    at: datetime
    tokens: int | None


def refused_between(cursor: Cursor, *, start: datetime, end: datetime) -> list[Refused]:
    """Refused and conflicting events used in [start, end), by node and id.

    Raises InvalidPeriod when there are more than MOST to read.
    """
    # An event may come as late as it is accepted, or ahead by what clocks may differ.
    ahead = timedelta(seconds=settings.FUTURE_TOLERANCE_SECONDS)
    window = {
        "since": start - ahead,
        "until": end + timedelta(days=settings.EVENT_MAX_AGE_DAYS),
        "limit": MOST + 1,
    }
    rows = cursor.execute(STANDING, window).fetchall()
    if len(rows) > MOST:
        raise InvalidPeriod(f"More than {MOST:,} events were refused; ask for a shorter period.")
    # What was refused and accepted when the node sent it again is nothing that it still claims.
    identities = {
        (source, event_id) for _, _, source, event_id, code, *_ in rows if code != CONFLICT
    }
    counted = counted_of(cursor, identities)
    found = []
    for id, node_id, source, event_id, code, body, received_at in rows:
        if code != CONFLICT and (source, event_id) in counted:
            continue
        at, tokens = _claim(body, received_at, code)
        if start <= at < end:
            found.append(Refused(id, node_id, event_id, code, at, tokens))
    return sorted(found, key=lambda one: (one.node_id, one.id))


def _claim(body: str, received_at: datetime, code: str) -> tuple[datetime, int | None]:
    try:
        event = ENVELOPE.decode(body)
    except UNREADABLE:
        return received_at, None
    at = received_at if code in UNTIMED else event.time
    try:
        return at, sum(normalise(usage_of(event.data)))
    except UnreadableUsage:
        return at, None
