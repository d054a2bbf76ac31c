"""The rows of quota sessions and of their answers, and what they hold of buckets.

Whoever changes a session holds the subscriber's charging profile, and the pools of what it holds.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from .database import Cursor, array

MT = 1000  # of a standard token

# A node's session by its name, with the answer to one sequence if it was given.
SESSION_BY_NAME = """
    SELECT session.id, session.ref, session.node_id, session.session, session.subject,
           session.subscriber_id, session.api_key_id, session.model, session.model_id,
           session.state, session.sequence, session.granted_mt, session.hold_bucket_ids,
           session.hold_mts, session.hold_payg_mt, session.notify_url,
           answer.digest, answer.status, answer.body
      FROM usage_quotasession AS session
      LEFT JOIN usage_quotaanswer AS answer
        ON answer.session_id = session.id AND answer.sequence = %(sequence)s
     WHERE session.node_id = %(node_id)s AND session.session = %(name)s
"""

SESSION_BY_REF = SESSION_BY_NAME.replace("session.session = %(name)s", "session.ref = %(name)s")

# The model of this name, if it has a weight at the instant.
MODEL_BY_NAME = """
    SELECT model.id
      FROM usage_inferencemodel AS model
     WHERE (lower(model.code) = %(name)s
            OR EXISTS (SELECT 1 FROM unnest(model.aliases) AS alias (name)
                        WHERE lower(alias.name) = %(name)s))
       AND EXISTS (SELECT 1 FROM usage_weight AS weight
                    WHERE weight.model_id = model.id AND weight.valid_from <= %(now)s
                      AND (weight.valid_until IS NULL OR weight.valid_until > %(now)s))
     ORDER BY model.id
     LIMIT 1
"""

# What the subscriber's other sessions hold.
OTHER_HOLDS = """
    SELECT session.api_key_id, session.granted_mt
      FROM usage_quotasession AS session
     WHERE session.subscriber_id = %(subscriber_id)s AND session.state = 'open'
       AND session.id <> %(session_id)s
     ORDER BY session.id
"""

# Holds more of buckets, or (below zero) gives back.
MOVE_RESERVED = """
    UPDATE usage_bucket AS bucket SET reserved_mt = bucket.reserved_mt + moved.mt
      FROM unnest(%(bucket_ids)s::bigint[], %(mts)s::bigint[]) AS moved (bucket_id, mt)
     WHERE bucket.id = moved.bucket_id
"""

MOVE_RESERVED_PAYG = """
    UPDATE usage_chargingprofile SET reserved_payg_mt = reserved_payg_mt + %(mt)s
     WHERE subscriber_id = %(subscriber_id)s
"""

# A new session with its first answer; no row when the node has a session of this name.
OPEN_SESSION = """
    WITH opened AS (
        INSERT INTO usage_quotasession (
            ref, node_id, session, subject, subscriber_id, api_key_id, model, model_id, state,
            sequence, granted_mt, hold_bucket_ids, hold_mts, hold_payg_mt, notify_url,
            created_at, supervised_until)
        VALUES (
            %(ref)s, %(node_id)s, %(name)s, %(subject)s, %(subscriber_id)s, %(api_key_id)s,
            %(model)s, %(model_id)s, %(state)s, %(sequence)s, %(granted_mt)s,
            %(hold_bucket_ids)s::bigint[], %(hold_mts)s::bigint[], %(hold_payg_mt)s,
            %(notify_url)s, %(now)s, %(supervised_until)s)
            ON CONFLICT (node_id, session) DO NOTHING
        RETURNING id
    )
    INSERT INTO usage_quotaanswer (session_id, sequence, digest, status, body, at)
    SELECT opened.id, %(sequence)s, %(digest)s, %(status)s, %(body)s, %(now)s FROM opened
    RETURNING session_id
"""

# The session as it is now with one more answer; no row when another was faster.
KEEP_SESSION = """
    WITH kept AS (
        UPDATE usage_quotasession
           SET subscriber_id = %(subscriber_id)s, api_key_id = %(api_key_id)s,
               model_id = %(model_id)s, state = %(state)s,
               sequence = GREATEST(sequence, %(sequence)s), granted_mt = %(granted_mt)s,
               hold_bucket_ids = %(hold_bucket_ids)s::bigint[],
               hold_mts = %(hold_mts)s::bigint[], hold_payg_mt = %(hold_payg_mt)s,
               supervised_until = %(supervised_until)s
         WHERE id = %(id)s AND subscriber_id IS NOT DISTINCT FROM %(known_subscriber_id)s
        RETURNING id
    )
    INSERT INTO usage_quotaanswer (session_id, sequence, digest, status, body, at)
    SELECT kept.id, %(sequence)s, %(digest)s, %(status)s, %(body)s, %(now)s FROM kept
        ON CONFLICT (session_id, sequence) DO NOTHING
    RETURNING session_id
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node is told: an HTTP status and a body."""

    status: int
    body: dict[str, Any]


@dataclass(slots=True)
class Session:
    """A session as its row is, or is to be; `id` is 0 before it is stored."""

    id: int
    ref: str
    node_id: int
    name: str
    subject: str
    subscriber_id: int | None
    api_key_id: int | None
    model: str
    model_id: int | None
    state: str
    sequence: int
    granted_mt: int = 0
    hold_bucket_ids: list[int] = field(default_factory=list)
    hold_mts: list[int] = field(default_factory=list)
    hold_payg_mt: int = 0
    notify_url: str = ""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that was given, and the digest of what was asked."""

    digest: bytes
    answer: Answer


@dataclass(frozen=True, slots=True)
class OtherHold:
    """What another open session of the subscriber holds."""

    api_key_id: int | None
    granted_mt: int


def find(
    cursor: Cursor, statement: str, *, node_id: int, name: str, sequence: int
) -> tuple[Session, StoredAnswer | None] | None:
    """A node's session by name or ref (which statement says), with the answer to a sequence."""
    row = cursor.execute(
        statement, {"node_id": node_id, "name": name, "sequence": sequence}, prepare=True
    ).fetchone()
    if row is None:
        return None
    *columns, digest, status, body = row
    if digest is None:
        return Session(*columns), None
    # Django's connections give JSON as text.
    told = json.loads(body) if isinstance(body, str) else body
    answered = StoredAnswer(bytes(digest), Answer(status, told))
    return Session(*columns), answered


def model_of(cursor: Cursor, *, name: str, now: datetime) -> int | None:
    """The id of a model that has a weight now, named in any letter case."""
    row = cursor.execute(MODEL_BY_NAME, {"name": name.lower(), "now": now}, prepare=True).fetchone()
    return None if row is None else int(row[0])


def other_holds(cursor: Cursor, session: Session) -> list[OtherHold]:
    """What the subscriber's other open sessions hold."""
    rows = cursor.execute(
        OTHER_HOLDS, {"subscriber_id": session.subscriber_id, "session_id": session.id}
    )
    return [OtherHold(*row) for row in rows]


def move_reserved(cursor: Cursor, moves: Iterable[tuple[int, int]]) -> None:
    """Hold (bucket id, mt) more, or below zero give back; the net of each bucket is moved once."""
    net: dict[int, int] = defaultdict(int)
    for bucket_id, mt in moves:
        net[bucket_id] += mt
    moved = sorted((bucket_id, mt) for bucket_id, mt in net.items() if mt)
    if moved:
        ids, mts = zip(*moved, strict=True)
        cursor.execute(MOVE_RESERVED, {"bucket_ids": array(ids), "mts": array(mts)}, prepare=True)


def move_reserved_payg(cursor: Cursor, *, subscriber_id: int, mt: int) -> None:
    """Hold mt more beyond the buckets, or below zero give back."""
    if mt:
        cursor.execute(MOVE_RESERVED_PAYG, {"subscriber_id": subscriber_id, "mt": mt})


def store(
    cursor: Cursor,
    session: Session,
    *,
    sequence: int,
    digest: bytes,
    answer: Answer,
    known_subscriber_id: int | None,
    supervised_until: datetime,
    now: datetime,
) -> bool:
    """Write a session with the answer to a sequence; False when another was faster."""
    row = {
        "id": session.id,
        "ref": session.ref,
        "node_id": session.node_id,
        "name": session.name,
        "subject": session.subject,
        "subscriber_id": session.subscriber_id,
        "known_subscriber_id": known_subscriber_id,
        "api_key_id": session.api_key_id,
        "model": session.model,
        "model_id": session.model_id,
        "state": session.state,
        "sequence": sequence,
        "granted_mt": session.granted_mt,
        "hold_bucket_ids": array(session.hold_bucket_ids),
        "hold_mts": array(session.hold_mts),
        "hold_payg_mt": session.hold_payg_mt,
        "notify_url": session.notify_url,
        "supervised_until": supervised_until,
        "digest": digest,
        "status": answer.status,
        "body": Jsonb(answer.body),
        "now": now,
    }
    statement = KEEP_SESSION if session.id else OPEN_SESSION
    return cursor.execute(statement, row, prepare=True).fetchone() is not None


def new_ref(now: datetime) -> str:
    """A name for a session that nobody can guess and that grows with time."""
    return f"qs_{int(now.timestamp() * 1000):012x}{secrets.token_hex(10)}"
