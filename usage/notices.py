"""Notices on the way to the end: told once per cycle and share, in the subscriber's language.

Written set by set in the charging transaction, since a batch may take many subscribers over one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import OutboxMessage, Subscriber

from .database import Cursor

ADD_NOTICES = """
    INSERT INTO usage_notice (subscriber_id, cycle, percent, at)
    SELECT reached.subscriber_id, %(cycle)s, reached.percent, %(now)s
      FROM unnest(%(owners)s::bigint[], %(percents)s::smallint[])
           AS reached (subscriber_id, percent)
     ORDER BY reached.subscriber_id, reached.percent
        ON CONFLICT (subscriber_id, cycle, percent) DO NOTHING
    RETURNING subscriber_id, percent
"""

SET_NOTICED = """
    UPDATE usage_chargingprofile AS profile
       SET noticed_cycle = %(cycle)s, noticed_percent = reached.percent
      FROM (SELECT told.subscriber_id, MAX(told.percent) AS percent
              FROM unnest(%(owners)s::bigint[], %(percents)s::smallint[])
                   AS told (subscriber_id, percent)
             GROUP BY told.subscriber_id) AS reached
     WHERE profile.subscriber_id = reached.subscriber_id
"""


@dataclass(frozen=True, slots=True)
class Reached:
    """The shares (percent) of the tokens valid now that a subscriber has just used up."""

    subscriber_id: int
    percents: list[int]


def tell(cursor: Cursor, reached: Sequence[Reached], *, cycle: date, now: datetime) -> None:
    """Write notices and their messages; the caller holds the subscribers' profiles."""
    pairs = [(one.subscriber_id, percent) for one in reached for percent in one.percents]
    told = {
        "cycle": cycle,
        "now": now,
        "owners": [owner for owner, _percent in pairs],
        "percents": [percent for _owner, percent in pairs],
    }
    new = cursor.execute(ADD_NOTICES, told).fetchall()
    cursor.execute(SET_NOTICED, told)
    if not new:
        return
    owners = {owner for owner, _percent in new}
    subscribers = Subscriber.objects.only("msisdn", "language").in_bulk(owners)
    OutboxMessage.objects.bulk_create(
        [
            OutboxMessage(
                key=f"notice:{owner}:{cycle:%Y-%m}:{percent}",
                recipient=subscribers[owner].msisdn,
                subscriber_id=owner,
                template=f"used_{percent}",
                body=notice_text(language=subscribers[owner].language, percent=percent),
                next_attempt_at=now,
                created_at=now,
            )
            for owner, percent in new
        ],
        ignore_conflicts=True,
        batch_size=1000,
    )


def notice_text(*, language: str, percent: int) -> str:
    """The text of a threshold notice in a language."""
    with translation.override(language):
        if percent >= 100:
            return _("Your AI tokens are used up. Buy a pack to go on.")
        return _("You have used %(percent)d%% of your AI tokens.") % {"percent": percent}
