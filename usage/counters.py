"""A node's own running totals: the outside measure that received usage is compared with.

Each sample keeps its totals and what came on since the one before it, so a sum over samples is
the usage between. A total that got smaller means that the engine had started anew: then the whole
total came on. The first sample of a node counts whole, too: what it served before we knew it is
better seen than hidden. A late sample splits the difference of the one after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from config.errors import DomainError

from .models import Node, NodeCounter

MOST_MODELS = 1000
LARGEST_TOTAL = 2**53


class CountersRefused(DomainError):
    """Totals that cannot be right; nothing of them was stored."""

    code = "counters_refused"
    status = 400
    title = "The counters are refused"


class CountersDiffer(DomainError):
    """The same node, model and instant were reported before with other totals."""

    code = "counters_differ"
    status = 409
    title = "These counters were reported with other totals"


@dataclass(frozen=True, slots=True)
class Totals:
    """Running totals of one model (empty: the node does not tell): whole numbers from 0.
    `input_tokens` includes cached ones; by `rounding` tokens both together may be off."""

    model: str
    input_tokens: int
    output_tokens: int
    requests: int
    rounding: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a report: samples that are new, known already, and after a restart."""

    stored: int
    duplicate: int
    reset: int


@transaction.atomic
def take(*, node_id: int, totals: Sequence[Totals], at: datetime, now: datetime) -> Taken:
    """Store a node's totals of the instant `at`; a repeat stores nothing.

    Raises CountersRefused or CountersDiffer. Late samples are welcome.
    """
    _check(totals, at, now)
    # One report of a node at a time, so that each sample finds its true neighbours.
    Node.objects.select_for_update(no_key=True).get(id=node_id)
    stored = reset = 0
    for one in sorted(totals, key=lambda each: each.model):
        sample = _store(node_id, one, at, now)
        if sample is not None:
            stored += 1
            reset += sample.reset
    return Taken(stored, len(totals) - stored, reset)


def _check(totals: Sequence[Totals], at: datetime, now: datetime) -> None:
    if not 1 <= len(totals) <= MOST_MODELS:
        raise CountersRefused(f"Report the totals of 1 to {MOST_MODELS:,} models at once.")
    if len({one.model for one in totals}) < len(totals):
        raise CountersRefused("A model stands in the report twice.")
    if at > now + timedelta(seconds=settings.FUTURE_TOLERANCE_SECONDS):
        raise CountersRefused(f"{at.isoformat()} has not come yet; check the node's clock.")
    if at < now - timedelta(days=settings.EVENT_MAX_AGE_DAYS):
        raise CountersRefused(f"{at.isoformat()} is too long ago to be compared.")
    for one in totals:
        numbers = (one.input_tokens, one.output_tokens, one.requests)
        if not all(0 <= number <= LARGEST_TOTAL for number in numbers):
            raise CountersRefused(f"A total of {one.model!r} is below 0 or above 2^53.")
        if len(one.model) > 200 or not (one.model.isprintable() or not one.model):
            raise CountersRefused("A model's name has at most 200 printable characters.")


def _store(node_id: int, totals: Totals, at: datetime, now: datetime) -> NodeCounter | None:
    own = NodeCounter.objects.filter(node_id=node_id, model=totals.model)
    known = own.filter(at=at).first()
    if known is not None:
        if (known.input_total, known.output_total, known.requests_total) != (
            totals.input_tokens,
            totals.output_tokens,
            totals.requests,
        ):
            raise CountersDiffer(f"{totals.model!r} at {at.isoformat()} was reported before.")
        return None
    sample = NodeCounter(
        node_id=node_id,
        model=totals.model,
        at=at,
        received_at=now,
        input_total=totals.input_tokens,
        output_total=totals.output_tokens,
        requests_total=totals.requests,
        rounding=totals.rounding,
    )
    _count_since(sample, own.filter(at__lt=at).order_by("-at").first())
    sample.save(force_insert=True)
    following = own.filter(at__gt=at).order_by("at").first()
    if following is not None:
        _count_since(following, sample)
        following.save(
            update_fields=[
                "input_tokens", "output_tokens", "requests", "reset", "rounding_since",
            ]
        )  # fmt: skip
    return sample


def _count_since(sample: NodeCounter, former: NodeCounter | None) -> None:
    """Set what came on between two samples; tokens that got fewer, by more than was rounded, tell
    a restart."""
    start = NodeCounter(input_total=0, output_total=0, requests_total=0, rounding=0)
    since = former or start
    off = sample.rounding + since.rounding
    sample.reset = (
        sample.input_total + off < since.input_total
        or sample.output_total + off < since.output_total
    )
    if sample.reset:
        since = start
    sample.rounding_since = since.rounding
    sample.input_tokens = sample.input_total - since.input_total
    sample.output_tokens = sample.output_total - since.output_total
    # An engine may stop telling its requests; tokens alone decide over a restart.
    sample.requests = max(0, sample.requests_total - since.requests_total)


def purge(*, now: datetime, limit: int = 10_000) -> int:
    """Forget at most `limit` samples older than usage itself is kept; returns how many."""
    before = now - timedelta(days=settings.EVENT_RETENTION_DAYS)
    old = NodeCounter.objects.filter(at__lt=before).order_by("at").values("id")[:limit]
    return NodeCounter.objects.filter(id__in=old).delete()[0]
