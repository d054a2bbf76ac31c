"""From a request body to usage events: the four bodies of the API, one verdict per event."""

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings

from config.errors import DomainError

from .normalising import ChatUsage, Counts, UnreadableUsage, normalise, usage_of
from .periods import day_end, day_of, day_start

SINGLE = "application/cloudevents+json"
BATCHES = {"application/cloudevents-batch+json", "application/json"}
LINES = "application/x-ndjson"
MEDIA_TYPES = [SINGLE, *sorted(BATCHES), LINES]

# What the decoder raises over bytes that are no JSON, no text, or nested without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UnreadableBody(DomainError):
    """The body as a whole cannot be read; nothing of it was stored."""

    code = "unreadable_body"
    status = 400
    title = "The body cannot be read"


class BodyTooLarge(DomainError):
    """More bytes or events than one request may carry."""

    code = "body_too_large"
    status = 413
    title = "The body is too large"


class UnsupportedBody(DomainError):
    """A media type or encoding that is not spoken here."""

    code = "unsupported_media_type"
    status = 415
    title = "The media type is not supported"


class Envelope(msgspec.Struct):
    """A CloudEvents 1.0 event as far as we read it; further attributes are ignored."""

    specversion: str
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    data: dict[str, Any]
    type: str = ""


class _ChatData(msgspec.Struct, gc=False):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    usage: ChatUsage


class _ChatEnvelope(msgspec.Struct, gc=False):
    """The envelope of nearly every event: its usage has the OpenAI chat shape."""

    specversion: Literal["1.0"]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    data: _ChatData
    type: str = ""


class Candidate(msgspec.Struct, gc=False):
    """An event that reads well, with the position it has in its batch and its billing day."""

    position: int
    raw: bytes
    id: str
    source: str
    subject: str
    model: str
    occurred_at: datetime  # in UTC
    day: date
    counts: Counts


class Refusal(msgspec.Struct, gc=False):
    """An event that is not counted, why, and the day its attempt belongs to in the proof."""

    position: int
    raw: bytes
    id: str
    source: str
    subject: str
    day: date
    code: str
    detail: str


class _Labels(msgspec.Struct):
    """What can still be told of an event that does not read."""

    id: Any = ""
    source: Any = ""
    subject: Any = ""
    time: Any = None


_envelope = msgspec.json.Decoder(Envelope)
_chat_envelope = msgspec.json.Decoder(_ChatEnvelope)
_labels = msgspec.json.Decoder(_Labels)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_anything = msgspec.json.Decoder(msgspec.Raw)


def split_body(*, body: bytes, content_type: str, encoding: str) -> list[bytes]:
    """The events of a body as raw JSON texts, at most USAGE_MAX_EVENTS of them.

    Raises UnsupportedBody, BodyTooLarge or UnreadableBody; an NDJSON line is not read here.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media not in MEDIA_TYPES:
        raise UnsupportedBody(f"Send one of {', '.join(MEDIA_TYPES)}; got {media or 'none'!r}.")
    body = _inflate(body, encoding.strip().lower())
    try:
        if media == LINES:
            events = [line for line in body.splitlines() if line.strip()]
        elif media == SINGLE or body.lstrip()[:1] == b"{" and media == "application/json":
            events = [bytes(_anything.decode(body))]
        else:
            events = [bytes(raw) for raw in _array.decode(body)]
    except UNREADABLE as error:
        mended = _array_with_broken_texts(body) if media in BATCHES else None
        if mended is None:
            raise UnreadableBody(f"The body is not the JSON it says it is: {error}") from None
        events = mended
    if len(events) > settings.USAGE_MAX_EVENTS:
        raise BodyTooLarge(
            f"{len(events):,} events in one request; send at most {settings.USAGE_MAX_EVENTS:,}."
        )
    return events


def _array_with_broken_texts(body: bytes) -> list[bytes] | None:
    """The elements of an array in which a text ends in half a surrogate pair (cut off in the
    middle of an emoji). That is JSON, so only the event that holds it is refused, not its batch."""
    if b"\\ud" not in body.lower():
        return None
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return [json.dumps(one).encode() for one in found] if isinstance(found, list) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _inflate(body: bytes, encoding: str) -> bytes:
    limit = settings.USAGE_MAX_BYTES
    if encoding == "gzip":
        try:
            with gzip.GzipFile(fileobj=BytesIO(body)) as stream:
                body = stream.read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableBody(f"The body is not valid gzip: {error}") from None
    elif encoding not in {"", "identity"}:
        raise UnsupportedBody(f"Content-Encoding {encoding!r} is not supported; use gzip.")
    if len(body) > limit:
        raise BodyTooLarge(f"The body exceeds {limit:,} bytes; send smaller batches.")
    return body


def read_events(
    events: Sequence[bytes], *, now: datetime, positions: Iterable[int] | None = None
) -> list[Candidate | Refusal]:
    """Read the events of a request that came at `now`, and check what can be checked without the
    database; `positions` are their places in the request where these are not all of it."""
    reader = _Reader(now, plain=_all_plain(b"".join(events)))
    places = range(len(events)) if positions is None else positions
    return [reader.read(position, raw) for position, raw in zip(places, events, strict=True)]


def _all_plain(body: bytes) -> bool:
    """Whether JSON is ASCII without escapes, as nearly all is: then all of its texts can be
    printed, and nobody need look at each."""
    return body.isascii() and b"\\" not in body and b"\x7f" not in body


_Part = tuple[datetime, datetime, date]  # since, until, and the billing day that both lie in


class _Reader:
    def __init__(self, now: datetime, *, plain: bool) -> None:
        self._now = now
        self._plain = plain
        # Half open; the last instant that is accepted is left to the patient way.
        self._since = now - timedelta(days=settings.EVENT_MAX_AGE_DAYS)
        self._until = now + timedelta(seconds=settings.FUTURE_TOLERANCE_SECONDS)
        self._parts: list[_Part] = []  # by day, as far as events were of it
        self._part: _Part = self._since, self._since, date.min

    def read(self, position: int, raw: bytes) -> Candidate | Refusal:
        try:
            event = _chat_envelope.decode(raw)
            # In UTC like all that comes from the database: times of one zone compare faster.
            at = event.time.astimezone(UTC)
            since, until, day = self._part
            if not since <= at < until:
                _, _, day = self._part = self._part_with(at)
        except (*UNREADABLE, OverflowError):
            return self._read_any(position, raw)
        data, id, source, subject = event.data, event.id, event.source, event.subject
        counts = data.usage.counts()
        if counts is None or not (self._plain or f"{id}{source}{subject}".isprintable()):
            return self._read_any(position, raw)
        return Candidate(position, raw, id, source, subject, data.model, at, day, counts)

    def _part_with(self, at: datetime) -> "_Part":
        """The part of a billing day that is accepted and holds this instant; raises OverflowError
        when none does."""
        for part in self._parts:
            if part[0] <= at < part[1]:
                return part
        if not self._since <= at < self._until:
            raise OverflowError
        day = day_of(at)
        part = max(self._since, day_start(day)), min(self._until, day_end(day)), day
        self._parts.append(part)
        return part

    def _read_any(self, position: int, raw: bytes) -> Candidate | Refusal:
        """The same of any shape, with the reason when it is refused."""
        try:
            event = _envelope.decode(raw)
            counts = normalise(usage_of(event.data))
            model = event.data.get("model")
            _check_texts(event, model)
            day = day_of(event.time)  # a time at the edge of the calendar has none here
        except (*UNREADABLE, UnreadableUsage, OverflowError) as error:
            return _unreadable(position=position, raw=raw, detail=str(error), now=self._now)
        code, detail = _check_time(event.time, self._now)
        if code:
            return Refusal(position, raw, event.id, event.source, event.subject, day, code, detail)
        at = event.time.astimezone(UTC)
        return Candidate(
            position, raw, event.id, event.source, event.subject, str(model), at, day, counts
        )


def _check_texts(event: Envelope, model: object) -> None:
    if event.specversion != "1.0":
        raise UnreadableUsage(f"specversion is {event.specversion!r}; only 1.0 is spoken here.")
    if not isinstance(model, str) or not 1 <= len(model) <= 200:
        raise UnreadableUsage("data.model must name the model that served the request.")
    for name, text in (("id", event.id), ("source", event.source), ("subject", event.subject)):
        if not text.isprintable():
            raise UnreadableUsage(f"{name} holds characters that cannot be printed.")


def _check_time(time: datetime, now: datetime) -> tuple[str, str]:
    if time > now + timedelta(seconds=settings.FUTURE_TOLERANCE_SECONDS):
        return "in_future", f"{time.isoformat()} has not come yet; check the node's clock."
    if time < now - timedelta(days=settings.EVENT_MAX_AGE_DAYS):
        return "too_old", (
            f"{time.isoformat()} is more than {settings.EVENT_MAX_AGE_DAYS} days ago; "
            "book it as an adjustment."
        )
    return "", ""


def _unreadable(*, position: int, raw: bytes, detail: str, now: datetime) -> Refusal:
    try:
        labels = _labels.decode(raw)
    except UNREADABLE:
        labels = _Labels()
    return Refusal(
        position,
        raw,
        _text(labels.id),
        _text(labels.source),
        _text(labels.subject),
        _day(labels.time, now),
        "invalid_event",
        detail,
    )


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(letter for letter in text[:200] if letter.isprintable())


def _day(value: object, now: datetime) -> date:
    """The day of a readable time that lies in the accepted window, else the day of arrival."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else now
        if time.tzinfo is not None and not _check_time(time, now)[0]:
            return day_of(time)
    except (ValueError, OverflowError):
        return day_of(now)
    return day_of(now)
