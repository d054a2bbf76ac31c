"""Rating a period again after a weight was wrong: first a dry run, then, if wanted, applied.

Each event gets at most one amendment of a rerating, with the difference between what it amounts to
and what the weights make of its counts; so the new rating replaces the old one. It is applied in
short transactions that may stop anywhere and go on later: what is left is found by looking.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from config.errors import DomainError
from config.retrying import retry_transaction

from .amended import NetEvent
from .correcting import Change, Written, lock_events, write
from .corrections import NOTHING, rated
from .database import Cursor, fast_cursor
from .models import Amendment, InferenceModel, Rerating, Weight
from .proof import snapshot
from .rerating_sql import (
    APPLIED,
    APPLIED_DIFFERENCES,
    BY_SUBSCRIBER,
    DIFFERENCES,
    EVENTS_LEFT,
    OWNERS_AFTER,
    OWNERS_LEFT,
    TOTALS,
    WEIGHTS_OF,
)
from .resolving import RatedWeight

MOST_SUBSCRIBERS = 1000  # named in a report, whose totals are of all, and looked at in a page
SUBSCRIBERS_AT_ONCE = 50
EVENTS_AT_ONCE = 500
SILENCE = timedelta(minutes=2)  # a worker that says nothing for so long is gone

State = Rerating.State


class RerateRefused(DomainError):
    """The period is empty, the model unknown, or the weights are not those of the dry run."""

    code = "rerate_refused"
    status = 409
    title = "Cannot be rated again"


class UnknownRerating(DomainError):
    """There is no such rerating."""

    code = "unknown_rerating"
    status = 404
    title = "Unknown rerating"


def dry_run(
    *, model_code: str, start: datetime, end: datetime, actor: str, reason: str, now: datetime
) -> Rerating:
    """Report what the weights in force now would make of a model's usage in [start, end).

    Moves nothing. The report has `events`, `changed`, `former_mt`, `mt`, `difference_mt`,
    `subscribers` (how many differ), `weights` (ids) and `by_subscriber`: the 1,000 largest
    differences (`differences` tells all). Raises RerateRefused.
    """
    model = InferenceModel.objects.filter(code=model_code).first()
    if model is None:
        raise RerateRefused(f"There is no model {model_code!r}.")
    if not start < end:
        raise RerateRefused("The period is empty: its end must lie after its start.")
    if not reason.strip():
        raise RerateRefused("A rerating needs a reason.")
    with snapshot() as cursor:
        period: dict[str, Any] = {"model_id": model.pk, "start": start, "end": end}
        period["weights"] = _weights_of(cursor, period)
        report = _rows(cursor, TOTALS, period)[0]
        report["difference_mt"] = report["mt"] - report["former_mt"]
        report["weights"] = period["weights"]
        report["by_subscriber"] = _rows(cursor, BY_SUBSCRIBER, period | {"most": MOST_SUBSCRIBERS})
    return Rerating.objects.create(
        model_id=model.pk, start=start, end=end, report=report, actor=actor, reason=reason,
        made_at=now,
    )  # fmt: skip


def one(*, rerating_id: int) -> Rerating:
    """A rerating by its number; raises UnknownRerating."""
    found = Rerating.objects.filter(pk=rerating_id).first()
    if found is None:
        raise UnknownRerating(f"There is no rerating {rerating_id}.")
    return found


def differences(*, rerating_id: int, after: int) -> tuple[list[dict[str, Any]], int | None]:
    """The differences of the subscribers that follow `after` by id, a page of them: of a dry run
    what they would be now, else what was applied so far; and where the next page begins.

    A page may be empty and not the last. Raises UnknownRerating.
    """
    rerating = one(rerating_id=rerating_id)
    statement = DIFFERENCES if rerating.state == State.DRY else APPLIED_DIFFERENCES
    with snapshot() as cursor:
        found = cursor.execute(OWNERS_AFTER, {"after": after, "most": MOST_SUBSCRIBERS})
        owners = [owner for (owner,) in found]
        rows = _rows(cursor, statement, _period(rerating) | {"owners": owners})
    return rows, owners[-1] if len(owners) == MOST_SUBSCRIBERS else None


@transaction.atomic
def begin(*, rerating_id: int, actor: str, now: datetime) -> tuple[Rerating, bool]:
    """Decide that a dry run shall be applied; a repeat answers with False.

    Raises UnknownRerating, and RerateRefused when the weights have changed since the dry run.
    """
    one(rerating_id=rerating_id)
    rerating = Rerating.objects.select_for_update().get(pk=rerating_id)
    if rerating.state != State.DRY:
        return rerating, False
    with fast_cursor() as cursor:
        weights = _weights_of(cursor, _period(rerating))
    if weights != rerating.report["weights"]:
        raise RerateRefused("The weights have changed since the dry run; make a new one.")
    rerating.state, rerating.applied_by = State.APPLYING, actor
    rerating.save(update_fields=["state", "applied_by"])
    return rerating, True


def waiting(*, now: datetime) -> list[int]:
    """Reratings to be applied that nobody works on: not begun yet, or their worker fell silent."""
    silent = Q(worked_at=None) | Q(worked_at__lt=now - SILENCE)
    rows = Rerating.objects.filter(silent, state=State.APPLYING).order_by("id")
    return list(rows.values_list("id", flat=True)[:10])


def apply(*, rerating_id: int, clock: Callable[[], datetime]) -> Rerating:
    """Rate again what is left; safe to stop, to start again and to run at once.

    `clock` is asked anew for every transaction, since a large period takes its time. Does nothing
    unless the rerating was begun.
    """
    rerating = Rerating.objects.get(pk=rerating_id)
    if rerating.state != State.APPLYING:
        return rerating
    owners = _owners_left(rerating)
    for first in range(0, len(owners), SUBSCRIBERS_AT_ONCE):
        part = owners[first : first + SUBSCRIBERS_AT_ONCE]
        # Each round rates its events again or finds none left, so it ends; the bound says so.
        for _round in range(100_000):
            if not apply_part(rerating=rerating, owners=part, now=clock()):
                break
    return _finish(rerating_id, clock())


def apply_part(*, rerating: Rerating, owners: Sequence[int], now: datetime) -> int:
    """Rate again at most 500 events of these subscribers in one transaction; returns how many
    were found."""

    written: list[Written] = []

    @transaction.atomic
    def attempt() -> int:
        written.clear()  # of an attempt that was rolled back
        # One worker at a time, and the others see that it lives.
        Rerating.objects.filter(pk=rerating.pk).update(worked_at=now)
        with fast_cursor() as cursor:
            about = _period(rerating) | {"owners": list(owners), "limit": EVENTS_AT_ONCE}
            ids = [number for (number,) in cursor.execute(EVENTS_LEFT, about)]
            events = lock_events(cursor, ids) if ids else {}
            weights = _rated_weights(rerating)
            changes = [_change(rerating, events[one], weights) for one in ids if one in events]
            real = [one for one in changes if one.mt]
            if real:
                written.append(write(cursor, real, now=now))
        return len(ids)

    found = retry_transaction(attempt)
    for one in written:
        one.open_members(now=now)
    return found


def _change(rerating: Rerating, event: NetEvent, weights: Sequence[RatedWeight]) -> Change:
    weight = next(
        one
        for one in weights
        if one.valid_from <= event.occurred_at
        and (one.valid_until is None or event.occurred_at < one.valid_until)
    )
    return Change(
        event=event,
        kind=Amendment.Kind.RERATE,
        counts=NOTHING,
        mt=weight.mt(event.counts) - event.mt,
        weight_id=weight.id,
        actor=rerating.applied_by,
        reason=rerating.reason,
        key=f"{_prefix(rerating.pk)}{event.id}",
    )


@transaction.atomic
def _finish(rerating_id: int, now: datetime) -> Rerating:
    rerating = Rerating.objects.select_for_update().get(pk=rerating_id)
    if rerating.state == State.APPLYING:
        with fast_cursor() as cursor:
            applied = _rows(cursor, APPLIED, {"prefix": _prefix(rerating_id)})[0]
        rerating.report = rerating.report | {"applied": applied}
        rerating.state, rerating.applied_at = State.APPLIED, now
        rerating.save(update_fields=["report", "state", "applied_at"])
    return rerating


def _owners_left(rerating: Rerating) -> list[int]:
    with snapshot() as cursor:
        return [owner for (owner,) in cursor.execute(OWNERS_LEFT, _period(rerating))]


def _period(rerating: Rerating) -> dict[str, Any]:
    return {
        "model_id": rerating.model_id,
        "start": rerating.start,
        "end": rerating.end,
        "weights": rerating.report["weights"],
        "prefix": _prefix(rerating.pk),
    }


def _prefix(rerating_id: int) -> str:
    return f"rerate:{rerating_id}:"


def _weights_of(cursor: Cursor, period: dict[str, Any]) -> list[int]:
    rows = cursor.execute(WEIGHTS_OF, period)
    return [weight for (weight,) in rows]


def _rated_weights(rerating: Rerating) -> list[RatedWeight]:
    return [rated(one) for one in Weight.objects.filter(pk__in=rerating.report["weights"])]


def _rows(cursor: Cursor, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    cursor.execute(statement, parameters)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]
