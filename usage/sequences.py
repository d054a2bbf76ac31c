"""The numbers that a node gives its batches: what is missing between them has not arrived."""

from dataclasses import dataclass

from .database import fast_cursor

MOST_NUMBERS = 10_000  # looked at, the newest of a node
MOST_GAPS = 100
LARGEST = 2**63 - 1

# Gaps between the newest numbers of a node, newest first. A batch sent again repeats its number.
GAPS = """
    WITH newest AS (
        SELECT DISTINCT batch.sequence
          FROM usage_usagebatch AS batch
         WHERE batch.node_id = %(node_id)s AND batch.sequence IS NOT NULL
         ORDER BY batch.sequence DESC
         LIMIT %(numbers)s
    ), followed AS (
        SELECT newest.sequence, LEAD(newest.sequence) OVER (ORDER BY newest.sequence) AS following
          FROM newest
    )
    SELECT followed.sequence + 1, followed.following - 1
      FROM followed
     WHERE followed.following - followed.sequence > 1
     ORDER BY followed.sequence DESC
     LIMIT %(gaps)s
"""

LAST = """
    SELECT MAX(batch.sequence)
      FROM usage_usagebatch AS batch
     WHERE batch.node_id = %(node_id)s AND batch.sequence IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The largest number a node has used (None: it numbers nothing) and the gaps below it, each
    its first and last missing number, in ascending order."""

    last: int | None
    gaps: list[tuple[int, int]]


def sequence_of(*, node_id: int) -> Sequence:
    """What a node's numbers say; the first number it ever used starts them."""
    row = {"node_id": node_id, "numbers": MOST_NUMBERS, "gaps": MOST_GAPS}
    with fast_cursor() as cursor:
        (last,) = cursor.execute(LAST, row).fetchone() or (None,)
        found = cursor.execute(GAPS, row).fetchall() if last is not None else []
    return Sequence(last, sorted((first, until) for first, until in found))
