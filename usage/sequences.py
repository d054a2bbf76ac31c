"""The numbers that a node gives its batches: what is missing between them has not arrived.

A gap is told until it is filled. So that nobody reads all numbers of a node for it, what is older
than its newest ones is looked at once, and the gaps that were open there are kept.
"""

from dataclasses import dataclass

from django.db import transaction

from .database import fast_cursor
from .models import Node, SequenceMark

RECENT_NUMBERS = 10_000  # of a node, which are looked at each time; a late first one is among them
MOST_KEPT = 10_000  # gaps of a node, the newest; who has more does not number one by one
MOST_GAPS = 100  # told at once, the newest
LARGEST = 2**63 - 1

# The gaps up to a number, newest first: those that were kept, less what came since, and those from
# the mark on. A batch sent again repeats its number. Each stretch lies between two numbers that
# are known, `lower` and `upper`, or begins at the mark (-1 as its `lower`).
GAPS = """
    WITH mark AS (
        SELECT mark.upto, mark.gap_starts, mark.gap_ends
          FROM usage_sequencemark AS mark
         WHERE mark.node_id = %(node_id)s
    ), kept AS (
        SELECT gap.first - 1 AS lower, gap.last + 1 AS upper
          FROM mark
         CROSS JOIN LATERAL unnest(mark.gap_starts, mark.gap_ends) AS gap (first, last)
    ), number AS (
        SELECT kept.lower AS stretch, kept.lower AS sequence
          FROM kept
         UNION
        SELECT kept.lower, kept.upper
          FROM kept
         UNION
        SELECT kept.lower, batch.sequence
          FROM kept
          JOIN usage_usagebatch AS batch
            ON batch.node_id = %(node_id)s
           AND batch.sequence > kept.lower AND batch.sequence < kept.upper
         UNION
        SELECT -1, batch.sequence
          FROM usage_usagebatch AS batch
         WHERE batch.node_id = %(node_id)s
           AND batch.sequence >= COALESCE((SELECT mark.upto FROM mark), 0)
           AND batch.sequence <= %(upto)s
    ), followed AS (
        SELECT number.sequence,
               LEAD(number.sequence) OVER (
                   PARTITION BY number.stretch ORDER BY number.sequence) AS following
          FROM number
    )
    SELECT followed.sequence + 1, followed.following - 1
      FROM followed
     WHERE followed.following - followed.sequence > 1
     ORDER BY followed.sequence DESC
     LIMIT %(most)s
"""

LAST = """
    SELECT MAX(batch.sequence)
      FROM usage_usagebatch AS batch
     WHERE batch.node_id = %(node_id)s AND batch.sequence IS NOT NULL
"""

# The oldest of the newest numbers of a node; no row while it has fewer.
OLDEST_RECENT = """
    SELECT DISTINCT batch.sequence
      FROM usage_usagebatch AS batch
     WHERE batch.node_id = %(node_id)s AND batch.sequence IS NOT NULL
     ORDER BY batch.sequence DESC
    OFFSET %(recent)s - 1
     LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The largest number a node has used (None: it numbers nothing) and the gaps below it, each
    its first and last missing number, in ascending order."""

    last: int | None
    gaps: list[tuple[int, int]]


def sequence_of(*, node_id: int) -> Sequence:
    """What a node's numbers say; the first number it ever used starts them."""
    with fast_cursor() as cursor:
        (last,) = cursor.execute(LAST, {"node_id": node_id}).fetchone() or (None,)
        row = {"node_id": node_id, "upto": last, "most": MOST_GAPS}
        found = cursor.execute(GAPS, row).fetchall() if last is not None else []
    return Sequence(last, sorted((first, until) for first, until in found))


@transaction.atomic
def look_at(*, node_id: int) -> None:
    """Move a node's mark up to its newest numbers; tells nothing new and may stop anywhere."""
    Node.objects.select_for_update(no_key=True).get(pk=node_id)
    with fast_cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '15min'")  # the first time it reads them all
        row = {"node_id": node_id, "recent": RECENT_NUMBERS}
        (upto,) = cursor.execute(OLDEST_RECENT, row).fetchone() or (None,)
        if upto is None:
            return
        found = cursor.execute(GAPS, {"node_id": node_id, "upto": upto, "most": MOST_KEPT})
        gaps = sorted((first, until) for first, until in found)
    SequenceMark.objects.update_or_create(
        node_id=node_id,
        defaults={
            "upto": upto,
            "gap_starts": [first for first, _until in gaps],
            "gap_ends": [until for _first, until in gaps],
        },
    )
