"""Limits besides the plan: tokens or requests a minute, day, week or month, held at reserve.

A limit is of a subscriber, or of one of its keys (then only what names that key counts). Windows
are cut in the billing zone; a week begins on Monday. What open sessions hold counts as used, and
what was amended or voided counts as it is now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from accounts.models import ApiKey
from config.errors import DomainError

from . import limit_usage
from .database import Cursor, fast_cursor
from .locking import lock_profiles
from .models import UNCAPPED, UsageLimit
from .periods import cycle_of, day_of, day_start
from .sessions import MT, OtherHold

# The limits that hold for a subscriber, and for one of its keys.
LIMITS = """
    SELECT rule.id, rule.api_key_id, rule."window", rule.unit, rule.amount,
           rule.counted_from, rule.counted
      FROM usage_usagelimit AS rule
     WHERE rule.subscriber_id = %(subscriber_id)s
       AND (rule.api_key_id IS NULL OR rule.api_key_id = %(api_key_id)s)
     ORDER BY rule.id
"""

# Usage of the running minute, as it was corrected; of longer windows the days are summed already.
USED_SINCE = """
    SELECT COALESCE(SUM(used.mt), 0)::bigint
      FROM (SELECT event.api_key_id, event.mt
              FROM usage_usageevent AS event
             WHERE event.subscriber_id = %(subscriber_id)s AND event.occurred_at >= %(since)s
             UNION ALL
            SELECT event.api_key_id, amendment.mt
              FROM usage_amendment AS amendment
              JOIN usage_usageevent AS event
                ON event.subscriber_id = amendment.subscriber_id
               AND event.occurred_at = amendment.occurred_at
               AND event.id = amendment.event_id
             WHERE amendment.subscriber_id = %(subscriber_id)s
               AND amendment.occurred_at >= %(since)s) AS used
     WHERE %(api_key_id)s::bigint IS NULL OR used.api_key_id = %(api_key_id)s
"""

COUNT_REQUEST = """
    UPDATE usage_usagelimit
       SET counted = CASE WHEN counted_from = %(since)s THEN counted + 1 ELSE 1 END,
           counted_from = %(since)s
     WHERE id = %(id)s
"""


class LimitRefused(DomainError):
    """The limit cannot be set, or there is none."""

    code = "limit_refused"
    status = 400
    title = "The limit is refused"


class NoSuchLimit(DomainError):
    """The subscriber or key has no such limit."""

    code = "limit_not_found"
    status = 404
    title = "No such limit"


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit as it stands, read under the profile's lock."""

    id: int
    api_key_id: int | None
    window: str
    unit: str
    amount: int
    counted_from: datetime | None
    counted: int

    def shown(self) -> dict[str, str | int]:
        """The limit as nodes and people read it, in standard tokens."""
        scope = "subscriber" if self.api_key_id is None else "key"
        if self.unit == UsageLimit.Unit.REQUESTS:
            return {"scope": scope, "window": self.window, "requests": self.amount}
        return {"scope": scope, "window": self.window, "tokens": self.amount // MT}


@dataclass(frozen=True, slots=True)
class Room:
    """How much limits still allow, and which of them allows the least."""

    mt: int
    rule: Rule


def window_start(window: str, now: datetime) -> datetime:
    """When the running minute, day, week (from Monday) or month of the billing zone began."""
    if window == UsageLimit.Window.MINUTE:
        return now.replace(second=0, microsecond=0)
    day = day_of(now)
    if window == UsageLimit.Window.WEEK:
        day -= timedelta(days=day.weekday())
    if window == UsageLimit.Window.MONTH:
        day = cycle_of(now)
    return day_start(day)


def rules_of(cursor: Cursor, *, subscriber_id: int, api_key_id: int | None) -> list[Rule]:
    """The limits that hold for a session of this subscriber, opened by this key if by one."""
    row = {"subscriber_id": subscriber_id, "api_key_id": api_key_id}
    return [Rule(*columns) for columns in cursor.execute(LIMITS, row, prepare=True)]


def room(
    cursor: Cursor,
    rules: Sequence[Rule],
    *,
    subscriber_id: int,
    others: Iterable[OtherHold],
    now: datetime,
) -> Room | None:
    """How much the limits still allow (None: there are none), counting this request if they do.

    A request that is refused is not counted.
    """
    holds = list(others)
    rooms = [
        Room(_left_mt(cursor, rule, subscriber_id, holds, now), rule)
        for rule in rules
        if rule.unit == UsageLimit.Unit.MT
    ]
    counters = [rule for rule in rules if rule.unit == UsageLimit.Unit.REQUESTS]
    for rule in counters:
        since = window_start(rule.window, now)
        counted = rule.counted if rule.counted_from == since else 0
        rooms.append(Room(0 if counted >= rule.amount else UNCAPPED, rule))
    least = min(rooms, key=lambda one: one.mt, default=None)
    if least is not None and least.mt >= MT:
        for rule in counters:
            row = {"id": rule.id, "since": window_start(rule.window, now)}
            cursor.execute(COUNT_REQUEST, row)
    return least


def _left_mt(
    cursor: Cursor, rule: Rule, subscriber_id: int, others: Sequence[OtherHold], now: datetime
) -> int:
    since = window_start(rule.window, now)
    if rule.window == UsageLimit.Window.MINUTE:
        row = {"subscriber_id": subscriber_id, "api_key_id": rule.api_key_id, "since": since}
        [(found,)] = cursor.execute(USED_SINCE, row).fetchall()
        used = int(found)
    else:
        used = limit_usage.used_since(
            cursor, subscriber_id=subscriber_id, api_key_id=rule.api_key_id, day=day_of(since)
        )
    held = sum(
        one.granted_mt
        for one in others
        if rule.api_key_id is None or one.api_key_id == rule.api_key_id
    )
    return max(0, rule.amount - used - held)


@transaction.atomic
def set_limit(
    *,
    subscriber_id: int,
    window: str,
    unit: str,
    amount: int,
    now: datetime,
    api_key_id: int | None = None,
) -> UsageLimit:
    """Allow `amount` (mt, or requests) a window to a subscriber, or to one of its keys."""
    if window not in UsageLimit.Window or unit not in UsageLimit.Unit or amount < 0:
        raise LimitRefused(
            "A limit is a number of tokens or requests a minute, day, week or month."
        )
    if api_key_id is not None:
        owned = ApiKey.objects.filter(pk=api_key_id, subscriber_id=subscriber_id)
        if not owned.exists():
            raise LimitRefused(f"Subscriber {subscriber_id} has no key {api_key_id}.")
    with fast_cursor() as cursor:
        [profile] = lock_profiles(cursor, [subscriber_id]).values()
        if profile.limited_since is None and unit == UsageLimit.Unit.MT:
            first = min(window_start(each, now) for each in UsageLimit.Window)
            limit_usage.begin(cursor, subscriber_id=subscriber_id, day=day_of(first))
    limit, _created = UsageLimit.objects.update_or_create(
        subscriber_id=subscriber_id,
        api_key_id=api_key_id,
        window=window,
        unit=unit,
        defaults={"amount": amount},
    )
    return limit


@transaction.atomic
def remove_limit(
    *, subscriber_id: int, window: str, unit: str, api_key_id: int | None = None
) -> None:
    """Lift a limit; raises NoSuchLimit."""
    with fast_cursor() as cursor:
        lock_profiles(cursor, [subscriber_id])
    gone, _each = UsageLimit.objects.filter(
        subscriber_id=subscriber_id, api_key_id=api_key_id, window=window, unit=unit
    ).delete()
    if not gone:
        raise NoSuchLimit(f"There is no limit of {unit} a {window} here.")
