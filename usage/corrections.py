"""Mending an event that was reported wrong: by a further row, never by rewriting the first.

A void takes all of it back, an amendment only the difference. What was wrong stays as evidence,
and so does the event's identity: sent again it is a duplicate, not a new event.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Sum

from config.errors import DomainError
from config.retrying import retry_transaction

from .amended import NetEvent, minus, plus
from .correcting import Change, Written, lock_events, write
from .database import fast_cursor
from .models import Amendment, UsageEvent, Weight
from .normalising import MAX_TOKENS, Counts, UnreadableUsage, normalise
from .resolving import RatedWeight
from .weights import milli_of

NOTHING = Counts(0, 0, 0, 0)


class UnknownEvent(DomainError):
    """There is no such event, or its day is past retention."""

    code = "unknown_event"
    status = 404
    title = "Unknown event"


class CorrectionRefused(DomainError):
    """The event is voided, or the correction would change nothing."""

    code = "correction_refused"
    status = 409
    title = "The correction is refused"


class CorrectionUnreadable(DomainError):
    """A reason, a key or the counts are missing or out of range."""

    code = "invalid_correction"
    status = 400
    title = "The correction cannot be read"


class KeyReused(DomainError):
    """The key of a correction came again with other content."""

    code = "idempotency_conflict"
    status = 409
    title = "The key was used before"


def void(*, event_id: int, actor: str, reason: str, key: str, now: datetime) -> Amendment:
    """Take an event back, its former amendments included, once; a repeat of the key gets the same
    answer.

    Tokens return to the buckets that paid, the last one first; into one that is closed or void
    they return and are lost at once. Raises UnknownEvent, CorrectionRefused when it is voided,
    KeyReused.
    """

    def change(event: NetEvent) -> Change:
        counts, mt = minus(NOTHING, event.counts), -event.mt
        kind = Amendment.Kind.VOID
        return Change(event, kind, counts, mt, event.weight_id, actor, reason, key)

    return _correct(event_id, None, change, reason, key, now)


def amend(
    *, event_id: int, counts: Counts, actor: str, reason: str, key: str, now: datetime
) -> Amendment:
    """Let an event count as `counts` (absolute, disjoint), rated by the weight that holds for it;
    a repeat of the key gets the same answer.

    More is charged like new usage of the event's time, less is taken back as by `void`, only the
    difference each. Raises UnknownEvent, CorrectionRefused when the event is voided or counts
    this already, KeyReused.
    """
    if any(not 0 <= count <= MAX_TOKENS for count in counts):
        raise CorrectionUnreadable(f"Counts are whole numbers from 0 to {MAX_TOKENS:,}.")

    def change(event: NetEvent) -> Change:
        difference = minus(counts, event.counts)
        if difference == NOTHING:
            raise CorrectionRefused(f"Event {event_id} counts this already.")
        mt = rated(Weight.objects.get(pk=event.weight_id)).mt(counts) - event.mt
        kind = Amendment.Kind.AMEND
        return Change(event, kind, difference, mt, event.weight_id, actor, reason, key)

    return _correct(event_id, counts, change, reason, key, now)


def counts_of(*, usage: Mapping[str, Any] | None, counts: Counts | None) -> Counts:
    """Counts as given, or those of an engine's usage object; exactly one of them is needed."""
    if (usage is None) is (counts is None):
        raise CorrectionUnreadable("Say what the event counts: give `usage` or `counts`.")
    try:
        return counts if usage is None else normalise(usage)  # type: ignore[return-value]
    except UnreadableUsage as unreadable:
        raise CorrectionUnreadable(str(unreadable)) from None


def rated(weight: Weight) -> RatedWeight:
    """A weight as rating takes it."""
    return RatedWeight(
        weight.pk,
        weight.model_id,
        weight.valid_from,
        weight.valid_until,
        Counts(*milli_of(weight)),
    )


def _correct(
    event_id: int,
    target: Counts | None,
    change: Callable[[NetEvent], Change],
    reason: str,
    key: str,
    now: datetime,
) -> Amendment:
    """Lock, look whether the key has its answer, write; `target` is None for a void."""
    if not reason.strip() or not key.strip():
        raise CorrectionUnreadable("A correction needs a reason and a key (Idempotency-Key).")

    written: list[Written] = []

    @transaction.atomic
    def attempt() -> Amendment:
        written.clear()  # of an attempt that was rolled back
        with fast_cursor() as cursor:
            event = lock_events(cursor, [event_id]).get(event_id)
            if event is None:
                raise UnknownEvent(f"There is no event {event_id}.")
            former = Amendment.objects.filter(key=key).first()
            if former is not None:
                return _answer_again(former, event_id, target)
            if event.voided:
                raise CorrectionRefused(f"Event {event_id} is voided.")
            written.append(write(cursor, [change(event)], now=now))
            return written[0].amendments[0]

    try:
        amendment = retry_transaction(attempt)
    except IntegrityError:
        # The same key for events of two subscribers at once: no lock is common to them.
        if not Amendment.objects.filter(key=key).exclude(event_id=event_id).exists():
            raise
        raise KeyReused(f"{key} names another correction.") from None
    for one in written:
        one.open_members(now=now)
    return amendment


def _answer_again(former: Amendment, event_id: int, target: Counts | None) -> Amendment:
    kind = Amendment.Kind.VOID if target is None else Amendment.Kind.AMEND
    same = (former.event_id, former.kind) == (event_id, kind)
    if not same or (target is not None and target != _counts_after(former)):
        raise KeyReused(f"{former.key} names another correction.")
    return former


def _counts_after(amendment: Amendment) -> Counts:
    """What the event counted once this amendment was written."""
    event = UsageEvent.objects.get(pk=amendment.event_id)
    names = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    upto = Amendment.objects.filter(event_id=event.pk, id__lte=amendment.pk)
    sums = upto.aggregate(*(Sum(name) for name in names))
    return plus(
        Counts(*(getattr(event, name) for name in names)),
        Counts(*(sums[f"{name}__sum"] for name in names)),
    )
