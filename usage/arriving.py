"""What nodes deliver, made ready to be counted: each event with its subscriber and its weight.

Nothing here is decided by what was counted before; who was charged, and for what, comes after.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct

import msgspec

from .batches import EVENTS_PER_BATCH, Batch, next_batches
from .charging import Usage
from .database import COPY_NULL, Cursor, copied_text, copied_time
from .decoding import Candidate, Refusal
from .models import Node, UsageBatch
from .resolving import RatedWeight, Subjects, Weights

EVENT_COLUMNS = (
    "id, batch_id, node_id, source, event_id, subscriber_id, api_key_id, model_id, weight_id, "
    "occurred_at, input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late"
)
# A row of these, all of them bigint but two texts and, last of all, `late`.
_FIRST = Struct("!h iq iq iq").pack
_NUMBER = Struct("!iq").pack
_REST = Struct("!iq iq iq iq iq iq iq iq i").pack

_source_field = lru_cache(4096)(copied_text)


class Delivery(msgspec.Struct, frozen=True):
    """Raw JSON events that a node sent in one request; `sequence` is its own number of the batch,
    if it numbers them."""

    node: Node
    events: Sequence[bytes]
    kind: str = UsageBatch.Kind.EVENTS
    sequence: int | None = None


class Resolved(msgspec.Struct, gc=False):
    """A readable event with its subscriber and the weight of its model at its time."""

    event: Candidate
    subscriber_id: int
    api_key_id: int | None
    weight: RatedWeight


class Arrival(msgspec.Struct):
    """A batch on its way. `resolved` may count; once keys are claimed, `usages` are its new
    events, and `rows` the same as COPY wants them but for the last byte, `late`, which charging
    decides."""

    batch: Batch
    resolved: list[Resolved] = []
    subjects: list[tuple[int, str]] = []  # (subscriber id, as named) of new events and repeats
    usages: list[Usage] = []
    rows: list[bytes] = []
    refusals: list[Refusal] = []

    def take(self, item: Resolved) -> None:
        """A new event joins its batch, to be charged and written."""
        event, weight, about, owner = item.event, item.weight, self.batch, item.subscriber_id
        number = about.id * EVENTS_PER_BATCH + event.position
        at, model_id, mt = event.occurred_at, weight.model_id, weight.mt(event.counts)
        computed, cached, output, reasoning = event.counts
        key = item.api_key_id
        self.subjects.append((owner, event.subject))
        self.usages.append(Usage(number, about.id, owner, model_id, at, event.day, mt))
        self.rows.append(
            _FIRST(16, 8, number, 8, about.id, 8, about.node_id)
            + _source_field(event.source)
            + copied_text(event.id)
            + _NUMBER(8, owner)
            + (COPY_NULL if key is None else _NUMBER(8, key))
            + _REST(
                *(8, model_id, 8, weight.id, 8, copied_time(at)),
                *(8, computed, 8, cached, 8, output, 8, reasoning, 8, mt, 1),
            )
        )

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


def arrive(
    cursor: Cursor,
    deliveries: Sequence[Delivery],
    read: Sequence[Sequence[Candidate | Refusal]],
) -> list[Arrival]:
    """Number the batches of deliveries, and find out whom and what their events name."""
    numbers = next_batches(cursor, len(deliveries))
    arrivals = [
        Arrival(Batch(number, delivery.node.pk, delivery.kind, delivery.sequence))
        for number, delivery in zip(numbers, deliveries, strict=True)
    ]
    own = [
        _of_own_sources(delivery.node, arrival, events)
        for arrival, delivery, events in zip(arrivals, deliveries, read, strict=True)
    ]
    subjects = Subjects(cursor, {event.subject for events in own for event in events})
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
    for event in events:
        subject = subjects.at(subject=event.subject, at=event.occurred_at)
        weight = weights.at(model=event.model, at=event.occurred_at)
        if subject is None:
            detail = f"No subscriber has {event.subject!r} as number, id or key."
            arrival.refuse(event, "unknown_subscriber", detail)
        elif weight is None:
            detail = f"Model {event.model!r} has no weight at {event.occurred_at.isoformat()}."
            arrival.refuse(event, "unknown_model", detail)
        else:
            arrival.resolved.append(Resolved(event, subject[0], subject[1], weight))
