"""A usage event counts once: keys are (source, id), and what is kept under them tells a repeat
from a conflict.

The key is the plain text, not a hash: ids that grow with time then stay together in the index,
and two identities can never collide.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from enum import Enum
from hashlib import blake2b

import psycopg
from django.db import IntegrityError, transaction

from .database import Cursor, copy_lines
from .decoding import Candidate

# Claims keys when some are taken; returns those that were free.
CLAIM_KEYS = """
    INSERT INTO usage_eventkey (key, content, day)
    SELECT claim.key, claim.content, %(day)s
      FROM unnest(%(keys)s::bytea[], %(contents)s::bytea[]) AS claim (key, content)
     ORDER BY claim.key
        ON CONFLICT (key) DO NOTHING
    RETURNING key
"""

# What is stored under keys that were taken. A statement of its own, so that it sees what the
# claim waited for.
STORED_KEYS = """
    SELECT stored.key, stored.content
      FROM usage_eventkey AS stored
     WHERE stored.key = ANY(%(keys)s::bytea[])
     ORDER BY stored.key
"""


class Verdict(Enum):
    """Whether an event is new, was counted already, or contradicts what was counted."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


def key_of(event: Candidate) -> bytes:
    """The identity (source, id) as bytes."""
    return f"{event.source}\0{event.id}".encode()


def content_of(event: Candidate) -> bytes:
    """16 bytes over what must not differ under one key. The time may: retries are stamped anew."""
    counts = event.counts
    text = f"{event.subject}\0{event.model}\0{counts[0]}\0{counts[1]}\0{counts[2]}\0{counts[3]}"
    return blake2b(text.encode(), digest_size=16).digest()


def judge(cursor: Cursor, events: Sequence[Candidate], *, day: date) -> list[Verdict]:
    """Claim the keys of events and say of each whether it counts; first in the batch wins.

    A key that was stored before is judged by what is stored, not by its first copy in the batch.
    """
    keys = [key_of(event) for event in events]
    contents = [content_of(event) for event in events]
    first: dict[bytes, int] = {}
    for position, key in enumerate(keys):
        first.setdefault(key, position)
    ordered = sorted(first)
    claimed = _claim(cursor, {key: contents[first[key]] for key in ordered}, day=day)
    stored = {key: contents[first[key]] for key in claimed}
    if taken := [key for key in ordered if key not in claimed]:
        rows = cursor.execute(STORED_KEYS, {"keys": taken})
        stored |= {bytes(key): bytes(content) for key, content in rows}
    return [
        Verdict.NEW
        if key in claimed and first[key] == position
        else Verdict.DUPLICATE
        if stored[key] == content
        else Verdict.CONFLICT
        for position, (key, content) in enumerate(zip(keys, contents, strict=True))
    ]


def _claim(cursor: Cursor, wanted: Mapping[bytes, bytes], *, day: date) -> set[bytes]:
    """Write keys (in the order given) with their contents; returns those that were free.

    Nearly always all are: COPY takes them twice as fast, and gives way at the first taken one.
    """
    try:
        with transaction.atomic():
            copy_lines(
                cursor,
                table="usage_eventkey",
                columns="key, content, day",
                lines=(
                    f"\\\\x{key.hex()}\t\\\\x{content.hex()}\t{day}"
                    for key, content in wanted.items()
                ),
            )
            return set(wanted)
    except (IntegrityError, psycopg.errors.UniqueViolation):
        claim = {"keys": list(wanted), "contents": list(wanted.values()), "day": day}
        return {bytes(key) for (key,) in cursor.execute(CLAIM_KEYS, claim)}
