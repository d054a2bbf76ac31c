"""What nodes are told without asking: to ask again for quota, or to stop serving.

A message is written in the transaction that causes it and sent afterwards, at least once: a row
is claimed in a short transaction (its next attempt moves past a lease), sent while none is open,
then marked. Sent again it has the same webhook-id. Only the newest word to a session counts: an
older one that still waits is not sent behind it, so a late ABORT cannot undo a REAUTHORIZE. A node
that does not answer is left alone for a while, lest its many messages hold up everybody's.
"""

import json
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import repeat

from django.db import transaction
from django.db.models import Exists, F, OuterRef

from .database import Cursor, fast_cursor
from .models import Callback, ChargingProfile, Node
from .webhooks import NotDelivered, check_url, new_secret, post

__all__ = ["announce", "check_url", "deliver_due", "purge", "renew_secret"]

logger = logging.getLogger(__name__)

Kind = Callback.Kind
State = Callback.State

# Waits between attempts, in seconds: twelve hours in all, then the message has failed.
BACKOFF = (10, 30, 60, 300, 900, 1800, 3600, 7200, 14_400, 14_400)
MAX_ATTEMPTS = len(BACKOFF) + 1
PAUSE = timedelta(seconds=30)  # for what else waits for a node that does not answer
KEPT = timedelta(days=30)  # how long a sent or failed message can be looked at
_CHUNK = 16  # messages in flight at once
_MOST_OVERTAKEN = 10_000  # closed a round; the rest waits for the next
# A round of sends takes a minute at most (slow names, three addresses), well within the lease.
_LEASE = timedelta(minutes=10)
_BUDGET_SECONDS = 60  # receivers refuse a timestamp that is minutes old

# One message to each living session of these subscribers that gave an address, unless the newest
# one says the same and has not gone out. Who is suspended is not told to ask again.
ADD_CALLBACKS = """
    INSERT INTO usage_callback (
        key, node_id, session_id, kind, url, body, state, attempts, next_attempt_at, created_at,
        last_error)
    SELECT %(cause)s::text || ':' || session.id,
           session.node_id,
           session.id,
           %(kind)s::text,
           session.notify_url,
           jsonb_build_object(
               'type', %(kind)s::text,
               'timestamp', %(stamp)s::text,
               'data', jsonb_build_object('ref', session.ref, 'session', session.session,
                                          'subject', session.subject)),
           'waiting', 0, %(now)s, %(now)s, ''
      FROM usage_quotasession AS session
      JOIN usage_chargingprofile AS profile ON profile.subscriber_id = session.subscriber_id
      LEFT JOIN LATERAL (SELECT earlier.kind, earlier.attempts
                           FROM usage_callback AS earlier
                          WHERE earlier.session_id = session.id
                          ORDER BY earlier.id DESC
                          LIMIT 1) AS newest ON TRUE
     WHERE session.subscriber_id = ANY(%(ids)s)
       AND session.state IN ('open', 'idle')
       AND session.notify_url <> ''
       AND (%(kind)s::text = 'ABORT' OR profile.blocked NOT IN ('suspended', 'terminated'))
       AND (newest.kind IS DISTINCT FROM %(kind)s::text OR newest.attempts > 0)
     ORDER BY session.id
        ON CONFLICT (key) DO NOTHING
"""

MEMBERS = """
    SELECT member.subscriber_id
      FROM usage_poolmember AS member
     WHERE member.pool_id = %(pool_id)s AND member.joined_at <= %(now)s
       AND (member.left_at IS NULL OR member.left_at > %(now)s)
     ORDER BY member.subscriber_id
"""

# Waiting messages behind which a newer one to the same session stands. Looked for once, else the
# limit might hold for each look.
OVERTAKEN = """
    WITH overtaken AS MATERIALIZED (
        SELECT older.id FROM usage_callback AS older
         WHERE older.state = 'waiting' AND older.next_attempt_at <= %(now)s
           AND EXISTS (SELECT 1 FROM usage_callback AS newer
                        WHERE newer.session_id = older.session_id AND newer.id > older.id)
         ORDER BY older.id
         LIMIT %(limit)s
           FOR UPDATE SKIP LOCKED)
    UPDATE usage_callback AS callback
       SET state = 'failed', last_error = 'A newer message to the session replaced it.'
      FROM overtaken
     WHERE callback.id = overtaken.id
"""

# What else is due for these nodes waits. Rows that others send just now are not waited for.
PUT_OFF = """
    WITH due AS MATERIALIZED (
        SELECT callback.id FROM usage_callback AS callback
         WHERE callback.state = 'waiting' AND callback.next_attempt_at <= %(now)s
           AND callback.node_id = ANY(%(node_ids)s)
         ORDER BY callback.id
           FOR UPDATE SKIP LOCKED)
    UPDATE usage_callback AS callback SET next_attempt_at = %(until)s
      FROM due
     WHERE callback.id = due.id
"""

PURGE = """
    DELETE FROM usage_callback
     WHERE id IN (SELECT callback.id FROM usage_callback AS callback
                   WHERE callback.state <> 'waiting' AND callback.created_at < %(before)s
                   ORDER BY callback.id
                   LIMIT %(limit)s)
"""


def announce(
    cursor: Cursor, *, subscriber_ids: Sequence[int], kind: str, cause: str, now: datetime
) -> None:
    """Write `kind` for each living session of these subscribers, once per cause.

    Call it in the transaction that causes it, after the profiles' blocks are settled. `cause`
    names what happened, at most 80 characters.
    """
    row = {"ids": list(subscriber_ids), "kind": kind, "cause": cause, "now": now}
    cursor.execute(ADD_CALLBACKS, row | {"stamp": now.isoformat()})


def reauthorize(
    cursor: Cursor, *, subscriber_ids: Sequence[int], cause: str, now: datetime
) -> None:
    """These subscribers have got more: their sessions are to ask again."""
    announce(cursor, subscriber_ids=subscriber_ids, kind=Kind.REAUTHORIZE, cause=cause, now=now)


def reauthorize_pool(cursor: Cursor, *, pool_id: int, cause: str, now: datetime) -> None:
    """A pool has got more: its members' sessions are to ask again."""
    members = [owner for (owner,) in cursor.execute(MEMBERS, {"pool_id": pool_id, "now": now})]
    reauthorize(cursor, subscriber_ids=members, cause=cause, now=now)


def tell_verdict(
    cursor: Cursor, *, subscriber_id: int, blocked: str, cause: str, now: datetime
) -> None:
    """Sessions of whom may be served no more are to end; of whom may again, are to ask again.

    Whoever ran out learns it when a session asks, so nothing is said of that.
    """
    if blocked != ChargingProfile.Block.EXHAUSTED:
        kind = Kind.ABORT if blocked else Kind.REAUTHORIZE
        announce(cursor, subscriber_ids=[subscriber_id], kind=kind, cause=cause, now=now)


def deliver_due(*, now: datetime, limit: int = 1000) -> int:
    """Send up to `limit` waiting messages that are due; returns how many arrived.

    Any number of workers may run it at once: claimed rows are skipped, not waited for.
    """
    _settle_without_sending(now)
    started = time.monotonic()
    claimed = sent = 0
    with ThreadPoolExecutor(_CHUNK) as pool:
        while claimed < limit and time.monotonic() - started < _BUDGET_SECONDS:
            callbacks = _claim(now=now, limit=min(_CHUNK, limit - claimed))
            if not callbacks:
                break
            claimed += len(callbacks)
            signing = _secrets([callback.node_id for callback in callbacks])
            problems = pool.map(_send, callbacks, signing, repeat(now))
            silent: set[int] = set()
            for callback, problem in zip(callbacks, problems, strict=True):
                _mark(callback, problem, now)
                sent += problem is None
                if problem is not None and problem.silent:
                    silent.add(callback.node_id)
            _put_off(silent, now)
    return sent


def _settle_without_sending(now: datetime) -> None:
    """Close what must not go out: overtaken rows, and rows whose last attempt was killed."""
    with fast_cursor() as cursor:
        cursor.execute(OVERTAKEN, {"now": now, "limit": _MOST_OVERTAKEN})
    Callback.objects.filter(
        state=State.WAITING, next_attempt_at__lte=now, attempts__gte=MAX_ATTEMPTS
    ).update(state=State.FAILED, last_error="The last attempt did not end.")


@transaction.atomic
def _claim(*, now: datetime, limit: int) -> list[Callback]:
    newer = Callback.objects.filter(session_id=OuterRef("session_id"), id__gt=OuterRef("id"))
    due = Callback.objects.select_for_update(skip_locked=True).filter(
        ~Exists(newer), state=State.WAITING, next_attempt_at__lte=now, attempts__lt=MAX_ATTEMPTS
    )
    callbacks = list(due.order_by("next_attempt_at", "id")[:limit])
    Callback.objects.filter(id__in=[callback.id for callback in callbacks]).update(
        attempts=F("attempts") + 1, next_attempt_at=now + _LEASE
    )
    return callbacks


def _put_off(node_ids: Collection[int], now: datetime) -> None:
    """Leave nodes alone that did not answer: each further message would take as long as this."""
    if node_ids:
        row = {"node_ids": sorted(node_ids), "now": now, "until": now + PAUSE}
        with fast_cursor() as cursor:
            cursor.execute(PUT_OFF, row)


def _secrets(node_ids: Sequence[int]) -> list[str]:
    """The nodes' signing secrets, one each; a node that has none gets one."""
    found = dict(Node.objects.filter(id__in=node_ids).values_list("id", "callback_secret"))
    for node_id, secret in found.items():
        if not secret:
            Node.objects.filter(id=node_id, callback_secret="").update(callback_secret=new_secret())
            found[node_id] = Node.objects.values_list("callback_secret", flat=True).get(id=node_id)
    return [found[node_id] for node_id in node_ids]


def _send(callback: Callback, secret: str, now: datetime) -> NotDelivered | None:
    """One attempt, without the database: it runs in a thread of its own."""
    body = json.dumps(callback.body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    try:
        post(
            url=callback.url,
            secret=secret,
            message_id=f"msg_{callback.pk}",
            timestamp=int(now.timestamp()),
            body=body.encode(),
        )
    except NotDelivered as problem:
        return problem
    return None


def _mark(callback: Callback, problem: NotDelivered | None, now: datetime) -> None:
    # The guard on the state keeps a late second sender from undoing what the first one wrote.
    waiting = Callback.objects.filter(id=callback.pk, state=State.WAITING)
    attempts = callback.attempts + 1  # as the claim counted
    if problem is None:
        waiting.update(state=State.SENT, sent_at=now, last_error="")
        return
    over = problem.final or attempts >= MAX_ATTEMPTS
    logger.warning("callback %s, attempt %s: %s", callback.pk, attempts, problem)
    waiting.update(
        state=State.FAILED if over else State.WAITING,
        next_attempt_at=now + timedelta(seconds=BACKOFF[min(attempts, len(BACKOFF)) - 1]),
        last_error=str(problem),
    )


def purge(*, now: datetime, limit: int = 1000) -> int:
    """Forget at most `limit` messages that were settled long ago; returns how many."""
    with fast_cursor() as cursor:
        return cursor.execute(PURGE, {"before": now - KEPT, "limit": limit}).rowcount


def renew_secret(*, node_id: int) -> str:
    """A new signing secret for a node, which is shown this once; the former one is void."""
    secret = new_secret()
    Node.objects.filter(id=node_id).update(callback_secret=secret)
    return secret
