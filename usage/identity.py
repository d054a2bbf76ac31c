"""A usage event counts once: keys are (source, id), and what is kept under them tells a repeat
from a conflict.

Keys are short, so that an index over billions of them stays in memory, and keep the order that ids
have, since keys that come together then lie together. An id that holds a UUID becomes its 16 bytes
and a tag; any other id is kept as it is behind a tag of its source. A tag is 7 bytes of BLAKE2b
over the source and the spelling around the UUID. Two identities share a key only if both are the
same UUID, under two sources or in two spellings, and their tags agree: once in 7 x 10^16 such
pairs, so that at a hundred million pairs a day it is expected once in two million years. Ids
without a UUID meet only if the tags of two sources agree; among 10,000 sources: 1 in 10^9.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from struct import pack

import psycopg
from django.db import IntegrityError, transaction

from .database import COPY_ZERO, Cursor, copy_rows
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

TAG_BYTES = 7  # with 16 and a byte of length they fill 24, a multiple of 8, in the index
CONTENT_BYTES = 11  # a row of the table is then 64 bytes long
CACHED_TAGS = 4096

_DASHED = "-".join(f"[0-9a-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12))
_hex_at = re.compile("([0-9a-f]{32})").fullmatch
_dashed_at = re.compile(f"({_DASHED})").fullmatch
# The rarer spellings: capitals, or a number behind (as of parallel completions).
_spelled = re.compile(
    rf"([0-9a-f]{{32}}|{_DASHED}|[0-9A-F]{{32}}|{_DASHED.replace('a-f', 'A-F')})"
    r"(?:[-_.:][0-9]{1,3})?\Z"
).search
_words = re.compile("(?:[^0-9]*[^0-9A-Za-z])?").fullmatch


class Verdict(Enum):
    """Whether an event is new, was counted already, or contradicts what was counted."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


def key_of(source: str, id: str) -> bytes:
    """The identity (source, id): 23 bytes, or 7 or 8 more than the id has. Both are printable."""
    return _common_key_of(source, id) or _any_key_of(source, id)


def _common_key_of(source: str, id: str) -> bytes:
    """The same of an id that ends in 32 small hexadecimal digits, as nearly all do; else empty."""
    digits = id[-32:]
    if len(digits) < 32 or "-" in digits:
        return b""
    try:
        number = bytes.fromhex(digits)
    except ValueError:
        return b""
    # Reading takes capitals and skips spaces.
    tag = _tag(source, id[:-32], "x32") if number.hex() == digits else b""
    return number + tag if tag else b""


def _any_key_of(source: str, id: str) -> bytes:
    end = len(id)
    if found := _hex_at(id, end - 32):
        prefix, spelling = id[: end - 32], "x32"
    elif found := _dashed_at(id, end - 36):
        prefix, spelling = id[: end - 36], "x36"
    elif found := _spelled(id):
        digits = found[1]
        prefix, suffix = id[: found.start()], id[found.start() + len(digits) :]
        spelling = f"{'X' if digits.isupper() else 'x'}{len(digits)}{suffix}"
    if found and (tag := _tag(source, prefix, spelling)):
        return bytes.fromhex(found[1].replace("-", "")) + tag
    key = _tag(source, "", "text") + id.encode()
    # As long as a UUID with its tag it must not be; no text ends in a zero byte by itself.
    return key + b"\0" if len(key) == 16 + TAG_BYTES else key


@lru_cache(CACHED_TAGS)
def _tag(source: str, prefix: str, spelling: str) -> bytes:
    """Stands for all of an identity but its UUID; empty when the id is to be kept as text."""
    # Digits before a UUID may be a time or a count, which order the ids.
    if not _words(prefix):
        return b""
    text = f"{source}\0{prefix}\0{spelling}"
    return blake2b(text.encode(), digest_size=TAG_BYTES).digest()


def content_of(event: Candidate) -> bytes:
    """11 bytes over what must not differ under one key. The time may: retries are stamped anew."""
    computed, cached, output, reasoning = event.counts
    text = f"{event.subject}\0{event.model}\0{computed}\0{cached}\0{output}\0{reasoning}"
    return blake2b(text.encode(), digest_size=16).digest()[:CONTENT_BYTES]


def judge(
    cursor: Cursor, keys: Sequence[bytes], contents: Sequence[bytes], *, day: date
) -> list[Verdict]:
    """Claim the keys of events and say of each whether it counts; first in the batch wins.

    A key that was stored before is judged by what is stored, not by its first copy in the batch.
    """
    # Of copies the first one's content, since what is put in later stays.
    content_of_first = dict(zip(reversed(keys), reversed(contents), strict=True))
    ordered = sorted(content_of_first)
    wanted = {key: content_of_first[key] for key in ordered}
    claimed = _claim(cursor, wanted, day=day)
    if len(claimed) == len(keys):
        return [Verdict.NEW] * len(keys)
    stored = {key: wanted[key] for key in claimed}
    if taken := [key for key in ordered if key not in claimed]:
        rows = cursor.execute(STORED_KEYS, {"keys": taken})
        stored |= {bytes(key): bytes(content) for key, content in rows}
    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    return [
        Verdict.NEW
        if key in claimed and first[key] == position
        else Verdict.DUPLICATE
        if stored[key] == content
        else Verdict.CONFLICT
        for position, (key, content) in enumerate(zip(keys, contents, strict=True))
    ]


def counted_of(cursor: Cursor, identities: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (source, id) were counted, as far as keys are kept."""
    by_key = {key_of(source, id): (source, id) for source, id in identities}
    rows = cursor.execute(STORED_KEYS, {"keys": list(by_key)})
    return {by_key[bytes(key)] for key, _content in rows}


def _claim(cursor: Cursor, wanted: Mapping[bytes, bytes], *, day: date) -> Collection[bytes]:
    """Write keys (in the order given) with their contents; returns those that were free.

    Nearly always all are: COPY takes them twice as fast, and gives way at the first taken one.
    """
    if not wanted:
        return ()
    try:
        with transaction.atomic():
            copy_rows(
                cursor,
                table="usage_eventkey",
                columns="key, content, day",
                rows=_rows(wanted, day),
            )
        return wanted.keys()
    except (IntegrityError, psycopg.errors.UniqueViolation):
        claim = {"keys": list(wanted), "contents": list(wanted.values()), "day": day}
        return {bytes(key) for (key,) in cursor.execute(CLAIM_KEYS, claim)}


def _rows(wanted: Mapping[bytes, bytes], day: date) -> Iterator[bytes]:
    heads = {length: pack("!hi", 3, length) for length in set(map(len, wanted))}
    middle = pack("!i", CONTENT_BYTES)
    last = pack("!ii", 4, (day - COPY_ZERO.date()).days)
    for key, content in wanted.items():
        yield b"%b%b%b%b%b" % (heads[len(key)], key, middle, content, last)
