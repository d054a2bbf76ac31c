"""What may go the short way: small reports and large ones, which share transactions, and quota."""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from django.conf import settings

from config import clock

from .. import receiving
from ..arriving import Delivery
from ..callers import NotAdmitted, admitted
from ..database import hand_back
from ..decoding import split_body
from ..lanes import ALONE, Lanes
from ..models import Node
from ..receiving import SMALL_EVENTS, Report
from . import quota
from .short_way import Application, Call, InTurn, ShortWay, Told, Turns, Way

OK = 200
LARGE_AT_ONCE = 16  # in memory; USAGE_MAX_BYTES each at most
REPORTS = "api/v1/usage/events"
SEQUENCE = re.compile(r"sequence=[0-9]{1,18}")
SESSIONS = "api/v1/quota/sessions"
SESSION = re.compile(rf"/{SESSIONS}/([0-9a-zA-Z_]{{1,100}})/(update|release)")


def in_front_of(django: Application, *, connections: int, lanes: Lanes = ALONE) -> ShortWay:
    """All ways before Django's application.

    Reports share three of the connections (small ones, large ones, and what is left of these), and
    so wait for each other, not for turns; a large one's key is checked on whichever is free. What
    else comes, by a short way or not, waits for its turn to have one of the others. Of large bodies
    only so many are held in memory at once.
    """
    others = InTurn(ShortWay(django, quota_sessions), Turns(max(1, connections - 3)))
    large = ShortWay(others, partial(large_reports, lanes=lanes), Turns(LARGE_AT_ONCE))
    return ShortWay(large, small_reports)


def small_reports(path: str) -> Way | None:
    """The way of reports that are short."""
    return Way(REPORTS, _small) if path == f"/{REPORTS}" else None


def large_reports(path: str, *, lanes: Lanes = ALONE) -> Way | None:
    """The way of all other reports."""
    if path != f"/{REPORTS}":
        return None
    return Way(REPORTS, partial(_large, lanes=lanes), settings.USAGE_MAX_BYTES)


def quota_sessions(path: str) -> Way | None:
    """The ways of quota sessions."""
    if path == f"/{SESSIONS}":
        return Way(SESSIONS, partial(_ask, verb="create"))
    if named := SESSION.fullmatch(path):
        ref = named[1]
        verb: quota.Verb = "update" if named[2] == "update" else "release"
        # The route's label, as Django has it.
        return Way(f"{SESSIONS}/<str:ref>/{verb}", partial(_ask, verb=verb, ref=ref))
    return None


def _small(call: Call) -> Told | None:
    if (read := _read(call)) is None:
        return None
    events, sequence = read
    if len(events) > SMALL_EVENTS:
        return None
    return OK, receiving.take_small(Report(call.token, events, sequence)).shown()


def _large(call: Call, *, lanes: Lanes) -> Told | None:
    now = clock.now()
    try:
        node = _caller(call, scope=receiving.SCOPE, now=now)
    finally:
        hand_back()
    if (read := _read(call)) is None:
        return None
    events, sequence = read
    if len(events) <= SMALL_EVENTS:
        return None  # it went the way of small reports before, and not well
    # Should this fail, the view counts the same again: each event once.
    delivery = Delivery(node=node, events=events, sequence=sequence)
    return OK, lanes.take(delivery, now=now).shown()


def _ask(call: Call, *, verb: quota.Verb, ref: str = "") -> Told | None:
    if call.query:
        return None
    now = clock.now()
    try:
        node = _caller(call, scope=quota.SCOPE, now=now)
        # Should this fail, the view asks the same again; see there why nothing happens twice.
        answer = quota.answer_to(call.body, verb=verb, node=node, ref=ref, now=now)
    finally:
        hand_back()
    return answer.status, answer.body


def _read(call: Call) -> tuple[Sequence[bytes], int | None] | None:
    """The raw events of a report and its sequence; None for what the view has to look at."""
    if call.query and not SEQUENCE.fullmatch(call.query):
        return None
    sequence = int(call.query.partition("=")[2]) if call.query else None
    return split_body(body=call.body, content_type=call.content_type, encoding=""), sequence


def _caller(call: Call, *, scope: str, now: datetime) -> Node:
    """The node that calls; raises NotAdmitted."""
    [node] = admitted([call.token], scope=scope, now=now)
    if node is None:
        raise NotAdmitted
    return node
