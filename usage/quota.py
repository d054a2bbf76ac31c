"""Quota sessions: reserve before serving, report what was used, release.

(session, sequence) is the idempotency key: its answer is stored in the transaction that moves the
tokens, and sent again as it was. Used tokens travel as usage events and are charged by the same
code as any batch. Locks: charging profiles, event keys, pools; session rows come after them.
"""

from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from config.errors import DomainError
from config.retrying import retry_transaction

from . import sessions
from .arriving import Arrival, Delivery, arrive, owners_of
from .database import Cursor, fast_cursor
from .decoding import Candidate, Refusal, read_events
from .ingest import claim
from .locking import Owners, lock_owners, lock_pools_of, lock_shared, read_own
from .models import Node, QuotaSession, UsageBatch
from .resolving import asks_now
from .serving import Ask, Raced, serve
from .sessions import Answer, Session, StoredAnswer
from .standing import Standing

__all__ = ["Answer", "Ask", "create", "release", "update"]

RACES = 5  # with others that ask for the same; each of them has then been answered
State = QuotaSession.State


class ContextNotFound(DomainError):
    """The node has no session of this ref."""

    code = "CONTEXT_NOT_FOUND"
    status = 404
    title = "No such quota session"


class SequenceReused(DomainError):
    """The sequence was answered before, to another question."""

    code = "sequence_reused"
    status = 409
    title = "The sequence was used before"


class SessionExists(DomainError):
    """The node has a session of this name already, or had one that is released."""

    code = "session_exists"
    status = 409
    title = "The session exists"


class SessionReleased(DomainError):
    """The session was released and grants nothing more; what was used is still charged."""

    code = "session_released"
    status = 409
    title = "The session was released"


class QuotaBusy(DomainError):
    """Others kept asking for the same; nothing was stored."""

    code = "unavailable"
    status = 503
    title = "The session is busy"


def create(
    *,
    node: Node,
    name: str,
    subject: str,
    model: str,
    ask: Ask,
    now: datetime,
    notify_url: str = "",
    one_shot: bool = False,
) -> Answer:
    """Open a session under the node's own name for it and grant what is left, up to `requested`.

    With `one_shot` the events are charged and nothing is held. Raises SequenceReused,
    SessionExists; the result in the answer tells why nothing was granted.
    """
    read = read_events(ask.events, now=now)

    def once() -> Answer:
        with transaction.atomic(), fast_cursor() as cursor:
            found = sessions.find(
                cursor,
                sessions.SESSION_BY_NAME,
                node_id=node.pk,
                name=name,
                sequence=ask.sequence,
            )
            if found is not None:
                return _replayed(found, ask) or _second(found[0])
            batch = _arrive(cursor, node, ask, read)
            subscriber_id, api_key_id = asks_now(cursor, subject=subject, now=now)
            session = Session(
                0,
                sessions.new_ref(now),
                node.pk,
                name,
                subject,
                subscriber_id,
                api_key_id,
                model,
                sessions.model_of(cursor, name=model, now=now),
                State.IDLE,
                ask.sequence,
                notify_url=notify_url,
            )
            locked = _lock(cursor, session, batch, now)
            standing = _claim(cursor, locked, batch, now)
            ends = State.RELEASED if one_shot else None
            return serve(cursor, session, standing, ask, batch, ends=ends, status=201, now=now)

    return _repeated(once)


def update(*, node: Node, ref: str, ask: Ask, now: datetime) -> Answer:
    """Charge what was used, and let a new grant replace the held one.

    Raises ContextNotFound, SequenceReused, SessionReleased.
    """
    return _go_on(node, ref, ask, ends=None, now=now)


def release(*, node: Node, ref: str, ask: Ask, now: datetime) -> Answer:
    """Charge what was used, give back what is held and end the session; raises as update does."""
    return _go_on(node, ref, ask, ends=State.RELEASED, now=now)


def _go_on(node: Node, ref: str, ask: Ask, *, ends: str | None, now: datetime) -> Answer:
    read = read_events(ask.events, now=now)

    def once() -> Answer:
        with transaction.atomic(), fast_cursor() as cursor:
            known = _existing(cursor, node, ref, ask)
            if isinstance(known, Answer):
                return known
            batch = _arrive(cursor, node, ask, read)
            before = known.subscriber_id
            if before is None:
                known.subscriber_id, known.api_key_id = asks_now(
                    cursor, subject=known.subject, now=now
                )
            locked = _lock(cursor, known, batch, now)
            session = _existing(cursor, node, ref, ask)
            if isinstance(session, Answer) or session.subscriber_id != before:
                raise Raced
            session.subscriber_id, session.api_key_id = known.subscriber_id, known.api_key_id
            over = State.RELEASED if session.state == State.RELEASED else ends
            if session.model_id is None:
                session.model_id = sessions.model_of(cursor, name=session.model, now=now)
            standing = _claim(cursor, locked, batch, now, reads=bool(read) or over is None)
            return serve(
                cursor,
                session,
                standing,
                ask,
                batch,
                ends=over,
                status=200,
                now=now,
                known_subscriber_id=before,
            )

    return _repeated(once)


def _arrive(
    cursor: Cursor, node: Node, ask: Ask, read: list[Candidate | Refusal]
) -> Arrival | None:
    """The batch of what was used; None when nothing is reported."""
    if not read:
        return None
    [batch] = arrive(cursor, [Delivery(node, ask.events, UsageBatch.Kind.QUOTA)], [read])
    return batch


def _repeated(once: Callable[[], Answer]) -> Answer:
    for _race in range(RACES):
        try:
            return retry_transaction(once)
        except Raced:
            continue
    raise QuotaBusy("Others ask for this session at the same time; send the same again.")


def _existing(cursor: Cursor, node: Node, ref: str, ask: Ask) -> Session | Answer:
    """The node's session, or the answer that was given to this sequence already. One that was
    released is only there for what is reported late."""
    found = (
        sessions.find(
            cursor, sessions.SESSION_BY_REF, node_id=node.pk, name=ref, sequence=ask.sequence
        )
        if ref.isprintable()  # the database keeps no NUL, and no ref of ours is anything else
        else None
    )
    if found is None:
        raise ContextNotFound(f"This node has no quota session {ref!r}; create one.")
    answer = _replayed(found, ask)
    if answer is not None:
        return answer
    if found[0].state == State.RELEASED and not ask.events:
        raise SessionReleased(f"{ref} was released; create a new session to ask for more.")
    return found[0]


def _second(session: Session) -> Answer:
    raise SessionExists(
        f"The session {session.name!r} exists as {session.ref}; update that, "
        "or choose another name."
    )


def _replayed(found: tuple[Session, StoredAnswer | None], ask: Ask) -> Answer | None:
    session, stored = found
    if stored is None:
        return None
    if stored.digest != ask.digest:
        raise SequenceReused(
            f"Sequence {ask.sequence} of {session.ref} was answered with another body; "
            "send a new question under the next sequence."
        )
    return stored.answer


def _lock(cursor: Cursor, session: Session, batch: Arrival | None, now: datetime) -> Owners:
    """Lock the session's subscriber and those whose usage is reported."""
    owners = set(owners_of([batch] if batch else []))
    if session.subscriber_id is not None:
        owners.add(session.subscriber_id)
    return lock_owners(cursor, sorted(owners), now=now) if owners else ({}, {})


def _claim(
    cursor: Cursor, locked: Owners, batch: Arrival | None, now: datetime, *, reads: bool = True
) -> Standing:
    """Claim the keys of what is reported, lock pools, and read what may pay, unless nothing is
    going to be charged or granted."""
    if batch is not None:
        claim(cursor, [batch], now=now)
    profiles, memberships = locked
    if not reads:
        lock_pools_of(cursor, memberships)
        return Standing(profiles, {}, memberships)
    standing = read_own(cursor, profiles, memberships)
    lock_shared(cursor, standing, now=now)
    return standing
