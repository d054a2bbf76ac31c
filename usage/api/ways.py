"""What may go the short way: small reports, which share a transaction, and quota sessions."""

import re
from functools import partial

from config import clock

from .. import gathering
from ..callers import NotAdmitted, admitted
from ..database import hand_back
from ..decoding import split_body
from ..gathering import SMALL_EVENTS, Report
from . import quota
from .short_way import Call, Told, Way

OK = 200
REPORTS = "api/v1/usage/events"
SEQUENCE = re.compile(r"sequence=[0-9]{1,18}")
SESSIONS = "api/v1/quota/sessions"
SESSION = re.compile(rf"/{SESSIONS}/([0-9a-zA-Z_]{{1,100}})/(update|release)")


def reports(path: str) -> Way | None:
    """The way of small reports. Those who wait for a transaction that they share need no
    connection of their own, so it stands outside of the turns."""
    return Way(REPORTS, _report) if path == f"/{REPORTS}" else None


def sessions(path: str) -> Way | None:
    """The way of quota sessions. Each takes a connection, so it stands inside of the turns."""
    if path == f"/{SESSIONS}":
        return Way(SESSIONS, partial(_ask, verb="create"))
    if named := SESSION.fullmatch(path):
        ref = named[1]
        verb: quota.Verb = "update" if named[2] == "update" else "release"
        # The route's label, as Django has it.
        return Way(f"{SESSIONS}/<str:ref>/{verb}", partial(_ask, verb=verb, ref=ref))
    return None


def _report(call: Call) -> Told | None:
    if call.query and not SEQUENCE.fullmatch(call.query):
        return None
    sequence = int(call.query.partition("=")[2]) if call.query else None
    events = split_body(body=call.body, content_type=call.content_type, encoding="")
    if len(events) > SMALL_EVENTS:
        return None
    result = gathering.take(Report(call.token, events, sequence))
    return OK, result.shown()


def _ask(call: Call, *, verb: quota.Verb, ref: str = "") -> Told | None:
    if call.query:
        return None
    now = clock.now()
    try:
        [node] = admitted([call.token], scope=quota.SCOPE, now=now)
        if node is None:
            raise NotAdmitted
        # Should this fail, the view asks the same again; see there why nothing happens twice.
        answer = quota.answer_to(call.body, verb=verb, node=node, ref=ref, now=now)
    finally:
        hand_back()
    return answer.status, answer.body
