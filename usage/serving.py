"""One request of a quota session under its locks: give back, charge, grant anew, store."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from . import reserving, sessions
from .arriving import Arrival
from .charging import charge
from .database import Cursor
from .ingest import record, rows_of, write_events
from .models import QuotaSession
from .reserving import Granted
from .sessions import Answer, Session
from .standing import Standing

State = QuotaSession.State


class Raced(Exception):
    """Another request was faster; everything is looked at again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a node: `requested` standard tokens (None: as many as we see fit), and the
    raw JSON events of what was used. `digest` tells a repeat from another question."""

    sequence: int
    digest: bytes
    requested: int | None = None
    events: Sequence[bytes] = ()


def serve(
    cursor: Cursor,
    session: Session,
    standing: Standing,
    ask: Ask,
    batch: Arrival | None,
    *,
    ends: str | None,
    status: int,
    now: datetime,
    known_subscriber_id: int | None = None,
) -> Answer:
    """Give back, charge, grant anew, store: the whole of a request, under the locks and with the
    keys of its batch claimed.

    `ends` is the state of a session that shall hold nothing more.
    """
    released = session.state == State.RELEASED
    late = batch is not None and (released or session.state == State.EXPIRED)
    moves = [
        (bucket_id, -mt)
        for bucket_id, mt in zip(session.hold_bucket_ids, session.hold_mts, strict=True)
    ]
    payg_mt = -session.hold_payg_mt
    _give_back(standing, session)
    report: dict[str, Any] = {}
    if batch is not None:
        # What is reported may draw on what was held for it, so the hold goes back before.
        _move(cursor, session, moves, payg_mt)
        moves, payg_mt = [], 0
        charge(cursor, batch.usages, now=now, standing=standing)
        write_events(cursor, rows_of([batch]))
        [result] = record(cursor, [batch], profiles=standing.profiles, now=now)
        report = result.shown()
    if ends is None:
        # A newer one was answered already: what the node was told there goes on to be held.
        overtaken = ask.sequence < session.sequence
        requested = session.granted_mt // sessions.MT if overtaken else ask.requested
        grant = reserving.decide(cursor, session, standing, requested=requested, now=now)
    elif released:
        grant = Granted("SUCCESS", final={"action": "TERMINATE"})
    elif session.id:
        grant = Granted("SUCCESS")  # whoever releases asks for nothing
    else:
        grant = Granted(reserving.denial(session, standing, now=now) or "SUCCESS")
    _move(cursor, session, [*moves, *grant.hold.buckets], payg_mt + grant.hold.payg_mt)
    session.state = ends or (State.OPEN if grant.tokens else State.IDLE)
    session.granted_mt = grant.tokens * sessions.MT
    session.hold_bucket_ids = [bucket_id for bucket_id, _mt in grant.hold.buckets]
    session.hold_mts = [mt for _bucket_id, mt in grant.hold.buckets]
    session.hold_payg_mt = grant.hold.payg_mt
    body = _body(session, ask, grant) | report | ({"late_usage": True} if late else {})
    answer = Answer(status, body)
    stored = sessions.store(
        cursor,
        session,
        sequence=ask.sequence,
        digest=ask.digest,
        answer=answer,
        known_subscriber_id=known_subscriber_id,
        supervised_until=now + timedelta(seconds=2 * settings.QUOTA_VALIDITY_SECONDS),
        now=now,
    )
    if not stored:
        raise Raced
    return answer


def _give_back(standing: Standing, session: Session) -> None:
    """Free the session's hold in the standing that was read while it held."""
    if session.subscriber_id is None:
        return  # whoever holds is known
    held = zip(session.hold_bucket_ids, session.hold_mts, strict=True)
    reserving.give_back(standing, held, subscriber_id=session.subscriber_id)
    if session.hold_payg_mt:
        standing.profiles[session.subscriber_id].reserved_payg_mt -= session.hold_payg_mt


def _move(cursor: Cursor, session: Session, moves: list[tuple[int, int]], payg_mt: int) -> None:
    sessions.move_reserved(cursor, moves)
    if payg_mt:
        assert session.subscriber_id is not None  # whoever holds is known
        sessions.move_reserved_payg(cursor, subscriber_id=session.subscriber_id, mt=payg_mt)


def _body(session: Session, ask: Ask, grant: Granted) -> dict[str, Any]:
    """The answer's members that every answer has; `limit` only when one decided."""
    # At a threshold of nothing, a node would ask again before it has used anything.
    threshold = grant.tokens if grant.final else max(grant.tokens * 8 // 10, min(grant.tokens, 1))
    body: dict[str, Any] = {
        "ref": session.ref,
        "sequence": ask.sequence,
        "result": grant.result,
        "granted": grant.tokens,
        "threshold": threshold,
        "validity_seconds": settings.QUOTA_VALIDITY_SECONDS,
        "final": grant.final,
    }
    return body | ({"limit": grant.limit} if grant.limit else {})
