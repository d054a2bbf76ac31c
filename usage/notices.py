"""Notices on the way to the end: told once per cycle and share, in the subscriber's language.

Written set by set in the charging transaction, since a batch may take many subscribers over one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext as _

from .database import Cursor, array

SHARES = (50, 80, 100)  # percent of the tokens valid now

# New notices with their messages; `texts` are by language and share.
ADD_NOTICES = """
    WITH told AS (
        INSERT INTO usage_notice (subscriber_id, cycle, percent, at)
        SELECT reached.subscriber_id, %(cycle)s, reached.percent, %(now)s
          FROM unnest(%(owners)s::bigint[], %(percents)s::smallint[])
               AS reached (subscriber_id, percent)
         ORDER BY reached.subscriber_id, reached.percent
            ON CONFLICT (subscriber_id, cycle, percent) DO NOTHING
        RETURNING subscriber_id, percent
    )
    INSERT INTO accounts_outboxmessage (
        key, recipient, subscriber_id, template, body, state, attempts, next_attempt_at,
        created_at, last_error)
    SELECT format('notice:%%s:%%s:%%s', told.subscriber_id, %(month)s::text, told.percent),
           subscriber.msisdn, subscriber.id, format('used_%%s', told.percent), notice.body,
           'waiting', 0, %(now)s, %(now)s, ''
      FROM told
      JOIN accounts_subscriber AS subscriber ON subscriber.id = told.subscriber_id
      JOIN unnest(%(languages)s::text[], %(shares)s::smallint[], %(texts)s::text[])
           AS notice (language, percent, body)
        ON notice.percent = told.percent
       AND notice.language = CASE WHEN subscriber.language = ANY(%(languages)s::text[])
                                  THEN subscriber.language ELSE %(otherwise)s END
     ORDER BY subscriber.id, told.percent
        ON CONFLICT (key) DO NOTHING
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
        "owners": array(owner for owner, _percent in pairs),
        "percents": array(percent for _owner, percent in pairs),
    }
    texts = {"month": f"{cycle:%Y-%m}", "otherwise": settings.LANGUAGE_CODE, **_texts()}
    cursor.execute(ADD_NOTICES, told | texts)
    cursor.execute(SET_NOTICED, told)


@cache
def _texts() -> dict[str, list[str] | list[int]]:
    """All notices, as the statement wants them."""
    all_of_them = [(code, share) for code, _name in settings.LANGUAGES for share in SHARES]
    return {
        "languages": [code for code, _share in all_of_them],
        "shares": [share for _code, share in all_of_them],
        "texts": [notice_text(language=code, percent=share) for code, share in all_of_them],
    }


def notice_text(*, language: str, percent: int) -> str:
    """The text of a threshold notice in a language."""
    with translation.override(language):
        if percent >= 100:
            return _("Your AI tokens are used up. Buy a pack to go on.")
        return _("You have used %(percent)d%% of your AI tokens.") % {"percent": percent}
