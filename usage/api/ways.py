"""What may go the short way: small reports, which share a transaction, large ones, and quota."""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from django.conf import settings

from config import clock

from .. import gathering
from ..callers import NotAdmitted, admitted
from ..database import hand_back
from ..decoding import split_body
from ..gathering import SMALL_EVENTS, Report
from ..ingest import ingest
from ..models import Node
from . import quota
from .short_way import Application, Call, InTurn, ShortWay, Told, Way

OK = 200
REPORTS = "api/v1/usage/events"
SEQUENCE = re.compile(r"sequence=[0-9]{1,18}")
SESSIONS = "api/v1/quota/sessions"
SESSION = re.compile(rf"/{SESSIONS}/([0-9a-zA-Z_]{{1,100}})/(update|release)")


def in_front_of(django: Application, *, connections: int) -> ShortWay:
    """All ways before Django's application. Small reports share one of the connections; what else
    comes, by a short way or not, waits for its turn to have one of the others."""
    in_turn = InTurn(ShortWay(django, with_a_connection), most=max(1, connections - 1))
    return ShortWay(in_turn, small_reports)


def small_reports(path: str) -> Way | None:
    """Those who wait for a transaction that they share need no connection of their own, so this
    way stands outside of the turns."""
    return Way(REPORTS, _report) if path == f"/{REPORTS}" else None


def with_a_connection(path: str) -> Way | None:
    """The ways of large reports and of quota sessions: inside of the turns."""
    if path == f"/{REPORTS}":
        return Way(REPORTS, _batch, settings.USAGE_MAX_BYTES)
    if path == f"/{SESSIONS}":
        return Way(SESSIONS, partial(_ask, verb="create"))
    if named := SESSION.fullmatch(path):
        ref = named[1]
        verb: quota.Verb = "update" if named[2] == "update" else "release"
        # The route's label, as Django has it.
        return Way(f"{SESSIONS}/<str:ref>/{verb}", partial(_ask, verb=verb, ref=ref))
    return None


def _report(call: Call) -> Told | None:
    if (read := _read(call)) is None:
        return None
    events, sequence = read
    if len(events) > SMALL_EVENTS:
        return None
    return OK, gathering.take(Report(call.token, events, sequence)).shown()


def _batch(call: Call) -> Told | None:
    if (read := _read(call)) is None:
        return None
    events, sequence = read
    if len(events) <= SMALL_EVENTS:
        return None  # it went the way of small reports before, and not well
    now = clock.now()
    try:
        node = _caller(call, scope=gathering.SCOPE, now=now)
        # Should this fail, the view counts the same again: each event once.
        return OK, ingest(node=node, events=events, now=now, sequence=sequence).shown()
    finally:
        hand_back()


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
