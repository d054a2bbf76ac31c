"""Who and what an event names: subject -> subscriber, model -> weight, at the time of use."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Any

import msgspec

from .normalising import Counts

# The holders of numbers in question, in order of validity, which never overlaps.
HOLDERS = """
    SELECT assignment.msisdn, assignment.subscriber_id, assignment.valid_from
      FROM accounts_numberassignment AS assignment
     WHERE assignment.msisdn = ANY(%(msisdns)s::text[])
     ORDER BY assignment.msisdn, assignment.valid_from
"""

# With what tells this database from another one, as in remembering.
NUMBER_VERSION = """
    SELECT number.version, pg_postmaster_start_time(),
           pg_relation_filepath('accounts_numberversion')
      FROM accounts_numberversion AS number
"""

# Who holds a number now; a terminated subscriber keeps its last one until another takes it.
HOLDER_NOW = """
    SELECT assignment.subscriber_id
      FROM accounts_numberassignment AS assignment
      JOIN accounts_subscriber AS subscriber ON subscriber.id = assignment.subscriber_id
     WHERE assignment.msisdn = %(msisdn)s AND assignment.valid_from <= %(now)s
       AND (assignment.valid_until IS NULL OR assignment.valid_until > %(now)s
            OR subscriber.state = 'terminated')
     ORDER BY assignment.valid_from DESC
     LIMIT 1
"""

# Which of the given subscriber ids exist.
SUBSCRIBERS = """
    SELECT subscriber.id FROM accounts_subscriber AS subscriber
     WHERE subscriber.id = ANY(%(ids)s)
     ORDER BY subscriber.id
"""

# The subscribers behind public ids of API keys, revoked ones too: what was used was used.
KEYS = """
    SELECT key.public_id, key.id, key.subscriber_id
      FROM accounts_apikey AS key
     WHERE key.public_id = ANY(%(public_ids)s) AND key.kind = 'subscriber'
     ORDER BY key.public_id
"""

# Every model with every weight it has had, those withdrawn as wrong aside.
WEIGHTS = """
    SELECT model.id, model.code, model.aliases, weight.id, weight.valid_from, weight.valid_until,
           weight.input_milli, weight.cached_milli, weight.output_milli, weight.reasoning_milli
      FROM usage_inferencemodel AS model
      JOIN usage_weight AS weight ON weight.model_id = model.id
     WHERE weight.withdrawn_at IS NULL
     ORDER BY model.id, weight.valid_from
"""


MOST_NUMBERS = 200_000  # about 200 bytes each


class RatedWeight(msgspec.Struct, frozen=True, gc=False):
    """A weight with its validity; rating is exact: raw tokens x thousandths = millitokens."""

    id: int
    model_id: int
    valid_from: datetime
    valid_until: datetime | None
    milli: Counts

    def mt(self, counts: Counts) -> int:
        """Millitokens of these raw counts."""
        computed, cached, output, reasoning = counts
        for_computed, for_cached, for_output, for_reasoning = self.milli
        return (
            computed * for_computed
            + cached * for_cached
            + output * for_output
            + reasoning * for_reasoning
        )


class Weights:
    """All weights by model code and alias, as stored at the time of reading."""

    def __init__(self, cursor: Any) -> None:
        self._by_name: dict[str, list[RatedWeight]] = defaultdict(list)
        for model_id, code, aliases, weight_id, start, end, *milli in cursor.execute(
            WEIGHTS
        ).fetchall():
            weight = RatedWeight(weight_id, model_id, start, end, Counts(*milli))
            for name in (code, *aliases):
                self._by_name[name.lower()].append(weight)

    def at(self, model: str, at: datetime) -> RatedWeight | None:
        """The weight of a model, named in any letter case, at an instant; None when it has none."""
        for weight in self._by_name.get(model) or self._by_name.get(model.lower()) or ():
            if weight.valid_from <= at and (weight.valid_until is None or at < weight.valid_until):
                return weight
        return None


class Numbers:
    """Numbers with one holder ever, as a process remembers them while no number changes hands.

    Read the version first, and what is not known yet afterwards: what is learned then is at least
    as new, and thrown away once the version is another one, or another server's.
    """

    def __init__(self, most: int = MOST_NUMBERS) -> None:
        self._most = most
        self._guard = Lock()
        self._stamp: tuple[Any, ...] | None = None
        self._holders: dict[str, tuple[int, None]] = {}

    def known(self, cursor: Any) -> tuple[Any, dict[str, tuple[int, None]]]:
        """The version as it is now, and the holders known of it: look numbers up there."""
        stamp = cursor.execute(NUMBER_VERSION, prepare=True).fetchone()
        with self._guard:
            if stamp is None or stamp != self._stamp:
                self._stamp, self._holders = stamp, {}
            return stamp, self._holders

    def learn(self, stamp: Any, holders: Mapping[str, tuple[int, None]]) -> None:
        """Remember what was read under a version, if that still holds."""
        with self._guard:
            if stamp is not None and stamp == self._stamp:
                if len(self._holders) + len(holders) > self._most:
                    self._holders = {}
                self._holders |= holders


class Subjects:
    """The subscribers behind the subjects of one batch: number, id or key's public id."""

    def __init__(
        self, cursor: Any, subjects: Iterable[str], *, numbers: Numbers | None = None
    ) -> None:
        named = set(subjects)
        # As `at` answers: who was at all times one and the same, and else the numbers' holders.
        self._always: dict[str, tuple[int, int | None]] = {}
        self._holders: dict[str, list[tuple[int, datetime]]] = {}
        if numbers is not None:
            stamp, known = numbers.known(cursor)
            self._always = {text: known[text] for text in named if text in known}
            named -= self._always.keys()
        msisdns = [text for text in named if _is_number(text)]
        if msisdns:
            found = self._read_holders(cursor, msisdns)
            self._always |= found
            if numbers is not None:
                numbers.learn(stamp, found)
        if len(msisdns) == len(named):
            return
        if ids := [int(text) for text in named if _is_id(text)]:
            for (subscriber_id,) in cursor.execute(SUBSCRIBERS, {"ids": ids}):
                self._always[str(subscriber_id)] = subscriber_id, None
        if public_ids := [text for text in named if text.startswith("ak")]:
            for public_id, key_id, owner in cursor.execute(KEYS, {"public_ids": public_ids}):
                self._always[public_id] = owner, key_id

    def _read_holders(self, cursor: Any, msisdns: Sequence[str]) -> dict[str, tuple[int, None]]:
        """Those of one holder ever; the others become `_holders`."""
        texts = f"{{{','.join(msisdns)}}}"  # a list takes psycopg three times as long
        rows = cursor.execute(HOLDERS, {"msisdns": texts}, prepare=True).fetchall()
        found = {msisdn: (owner, None) for msisdn, owner, _start in rows}
        if len(found) == len(rows):
            return found
        for msisdn, owner, start in rows:
            self._holders.setdefault(msisdn, []).append((owner, start))
        for msisdn, holders in self._holders.items():
            if len(holders) > 1:
                del found[msisdn]
        return found

    def at(self, subject: str, at: datetime) -> tuple[int, int | None] | None:
        """(subscriber id, API key id or None) of a subject at the time of use.

        A number outside every validity belongs to its last holder before, else to its first one:
        what was used on it was used by somebody, and nobody else held it.
        """
        found = self._always.get(subject)
        if found is None and (holders := self._holders.get(subject)):
            return _holder(holders, at), None
        return found


def asks_now(cursor: Any, *, subject: str, now: datetime) -> tuple[int | None, int | None]:
    """(subscriber id, API key id) who asks for quota under a subject; (None, None): nobody.

    What was used on a number that its holder gave up is the holder's; but nobody is served on it.
    """
    if not _is_number(subject):
        return Subjects(cursor, [subject]).at(subject=subject, at=now) or (None, None)
    row = cursor.execute(HOLDER_NOW, {"msisdn": subject, "now": now}, prepare=True).fetchone()
    return (None if row is None else row[0]), None


def _holder(rows: Sequence[tuple[int, datetime]], at: datetime) -> int:
    """Of (subscriber id, held from) in order of time: who held the number then."""
    found = rows[0][0]
    for subscriber_id, start in rows:
        if start <= at:
            found = subscriber_id
    return found


_is_number = re.compile(r"\+[0-9]+").fullmatch


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18 and text[0] != "0"
