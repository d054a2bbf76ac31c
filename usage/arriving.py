"""What nodes deliver, made ready to be counted: each event with its subscriber and its weight.

Nothing here is decided by what was counted before; who was charged, and for what, comes after.
"""

from collections.abc import Iterable, Sequence

import msgspec

from .batches import EVENTS_PER_BATCH, Batch, next_batches
from .charging import Usage
from .database import NULL, Cursor, escaped
from .decoding import Candidate, Refusal
from .models import Node, UsageBatch
from .resolving import RatedWeight, Subjects, Weights


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
    events, and `lines` the same as COPY wants them but for the last column, which charging
    decides."""

    batch: Batch
    resolved: list[Resolved] = []
    subjects: list[tuple[int, str]] = []  # (subscriber id, as named) of new events and repeats
    usages: list[Usage] = []
    lines: list[str] = []
    refusals: list[Refusal] = []

    def take(self, item: Resolved) -> None:
        """A new event joins its batch, to be charged and written."""
        event, weight, about, owner = item.event, item.weight, self.batch, item.subscriber_id
        number = about.id * EVENTS_PER_BATCH + event.position
        at, model_id, mt = event.occurred_at, weight.model_id, weight.mt(event.counts)
        computed, cached, output, reasoning = event.counts
        self.subjects.append((owner, event.subject))
        self.usages.append(Usage(number, about.id, owner, model_id, at, event.day, mt))
        self.lines.append(
            f"{number}\t{about.id}\t{about.node_id}\t{escaped(event.source)}\t{escaped(event.id)}\t"
            f"{owner}\t{item.api_key_id or NULL}\t{model_id}\t{weight.id}\t"
            f"{at}\t{computed}\t{cached}\t{output}\t{reasoning}\t{mt}\t"
        )

    def repeat(self, item: Resolved) -> None:
        """A repeat is counted as such, and its subject is told of when blocked."""
        self.subjects.append((item.subscriber_id, item.event.subject))
        tally = self.batch.by_day[item.event.day]
        tally.received += 1
        tally.duplicate += 1

    def refuse(self, event: Candidate, code: str, detail: str) -> None:
        """An event that reads well does not count, and is kept with the reason."""
        self.refusals.append(
            Refusal(
                *(event.position, event.raw, event.id, event.source, event.subject, event.day),
                *(code, detail),
            )
        )


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
