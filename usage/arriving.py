"""What nodes deliver, made ready to be counted: each event with its subscriber and its weight.

Nothing here is decided by what was counted before; who was charged, and for what, comes after.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct

import msgspec

from .batches import EVENTS_PER_BATCH, Batch, next_batches
from .charging import Usage
from .database import Cursor, copied_text, copied_time
from .decoding import Candidate, Refusal
from .identity import content_of, key_of
from .models import Node, UsageBatch
from .resolving import Numbers, RatedWeight, Subjects, Weights

EVENT_COLUMNS = (
    "id, batch_id, node_id, source, event_id, subscriber_id, api_key_id, model_id, weight_id, "
    "occurred_at, input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late"
)
# A row of these, all of them bigint but two texts and, last of all, `late`. What many rows share
# is copied in one piece, since packing costs by the value: `_batch_part`, `_weight_part`.
_START = Struct("!h iq").pack
_TWO = Struct("!iq iq").pack
_LENGTH = Struct("!i").pack
_OWNER = Struct("!iq i").pack
_OWNER_AND_KEY = Struct("!iq iq").pack
_REST = Struct("!q iq iq iq iq iq i").pack


@lru_cache(4096)
def _batch_part(batch_id: int, node_id: int, source: str, id_bytes: int) -> bytes:
    """From batch_id to source, and the length of event_id."""
    return _TWO(8, batch_id, 8, node_id) + copied_text(source) + _LENGTH(id_bytes)


@lru_cache(4096)
def _weight_part(model_id: int, weight_id: int) -> bytes:
    """model_id, weight_id, and the length of occurred_at."""
    return _TWO(8, model_id, 8, weight_id) + _LENGTH(8)


class Delivery(msgspec.Struct, frozen=True):
    """Raw JSON events that a node sent in one request; `sequence` is its own number of the batch,
    if it numbers them. `positions` tell where in the request they stood, if these are a part."""

    node: Node
    events: Sequence[bytes]
    kind: str = UsageBatch.Kind.EVENTS
    sequence: int | None = None
    positions: Sequence[int] | None = None


class Resolved(msgspec.Struct, gc=False):
    """A readable event with its subscriber and all that is needed of it once that is locked: its
    identity and content (see identity), what is to be charged, and its row as COPY wants it but
    for the last byte, `late`, which charging decides."""

    event: Candidate
    subscriber_id: int
    key: bytes
    content: bytes
    usage: Usage
    row: bytes


class Arrival(msgspec.Struct):
    """A batch on its way. `resolved` may count; once keys are claimed, `usages` are its new
    events, and `rows` theirs."""

    batch: Batch
    resolved: list[Resolved] = []
    subjects: list[tuple[int, str]] = []  # (subscriber id, as named) of new events and repeats
    usages: list[Usage] = []
    rows: list[bytes] = []
    refusals: list[Refusal] = []

    def take(self, item: Resolved) -> None:
        """A new event joins its batch, to be charged and written."""
        self.subjects.append((item.subscriber_id, item.event.subject))
        self.usages.append(item.usage)
        self.rows.append(item.row)

    def repeat(self, item: Resolved) -> None:
        """A repeat is counted as such, and its subject is told of when blocked."""
        self.subjects.append((item.subscriber_id, item.event.subject))
        tally = self.batch.by_day[item.event.day]
        tally.received += 1
        tally.duplicate += 1

    def refuse(self, event: Candidate, code: str, detail: str) -> None:
        """An event that reads well does not count, and is kept with the reason."""
        about = event.position, event.raw, event.id, event.source, event.subject, event.day
        self.refusals.append(Refusal(*about, code, detail))


def resolved(
    about: Batch, event: Candidate, *, subscriber_id: int, key_id: int | None, weight: RatedWeight
) -> Resolved:
    """An event of a batch made ready, before anybody is locked for it."""
    number, model_id = about.id * EVENTS_PER_BATCH + event.position, weight.model_id
    at, counts, id = event.occurred_at, event.counts, event.id.encode()
    computed, cached, output, reasoning = counts
    mt, time = weight.mt(counts), copied_time(at)
    row = (
        _START(16, 8, number),
        _batch_part(about.id, about.node_id, event.source, len(id)),
        id,
        _OWNER(8, subscriber_id, -1)
        if key_id is None
        else _OWNER_AND_KEY(8, subscriber_id, 8, key_id),
        _weight_part(model_id, weight.id),
        _REST(time, 8, computed, 8, cached, 8, output, 8, reasoning, 8, mt, 1),
    )
    return Resolved(
        event,
        subscriber_id,
        key_of(event.source, event.id),
        content_of(event),
        Usage(number, about.id, subscriber_id, model_id, at, time, event.day, mt, key_id),
        b"".join(row),
    )


def arrive(
    cursor: Cursor,
    deliveries: Sequence[Delivery],
    read: Sequence[Sequence[Candidate | Refusal]],
    *,
    numbers: Numbers | None = None,
) -> list[Arrival]:
    """Number the batches of deliveries, and find out whom and what their events name."""
    batches = next_batches(cursor, len(deliveries))
    arrivals = [
        Arrival(Batch(id, delivery.node.pk, delivery.kind, delivery.sequence))
        for id, delivery in zip(batches, deliveries, strict=True)
    ]
    own = [
        _of_own_sources(delivery.node, arrival, events)
        for arrival, delivery, events in zip(arrivals, deliveries, read, strict=True)
    ]
    named = {event.subject for events in own for event in events}
    subjects = Subjects(cursor, named, numbers=numbers)
    weights = Weights(cursor)
    for arrival, events in zip(arrivals, own, strict=True):
        _resolve(arrival, events, subjects, weights)
    return arrivals


def owners_of(arrivals: Iterable[Arrival]) -> list[int]:
    """The subscribers whose events may count, in order."""
    return sorted({item.subscriber_id for arrival in arrivals for item in arrival.resolved})


def _of_own_sources(
    node: Node, arrival: Arrival, events: Iterable[Candidate | Refusal]
) -> list[Candidate]:
    """The readable events of this node's own sources; the rest is refused."""
    candidates: list[Candidate] = []
    own: set[str] = set()
    for item in events:
        if isinstance(item, Refusal):
            arrival.refusals.append(item)
        elif item.source in own or node.owns(item.source):
            own.add(item.source)
            candidates.append(item)
        else:
            detail = f"Node {node.name} does not speak for source {item.source!r}."
            arrival.refuse(item, "not_your_source", detail)
    return candidates


def _resolve(
    arrival: Arrival, events: Sequence[Candidate], subjects: Subjects, weights: Weights
) -> None:
    add, about = arrival.resolved.append, arrival.batch
    for event in events:
        at = event.occurred_at
        subject = subjects.at(event.subject, at)
        weight = weights.at(event.model, at)
        if subject is None:
            detail = f"No subscriber has {event.subject!r} as number, id or key."
            arrival.refuse(event, "unknown_subscriber", detail)
        elif weight is None:
            detail = f"Model {event.model!r} has no weight at {at.isoformat()}."
            arrival.refuse(event, "unknown_model", detail)
        else:
            owner, key_id = subject
            add(resolved(about, event, subscriber_id=owner, key_id=key_id, weight=weight))
