"""The rival of ingest: COPY of the same rows into a twin of the event table, 1,000 a commit.

The twin has the event table's columns, checks, day partitions and indexes, the one over
(subscriber, time) among them; one connection writes, with lines that are made before. Each time it
begins with the rows of the event table itself: into an index that is empty, rows go twice as fast
as into the one that ingest has to write to.
"""

import random
import time
from datetime import datetime, timedelta

import psycopg

from tests.bench.bodies import YESTERDAY_SHARE, Draw

ROWS = 1000

TWIN = """
    CREATE TABLE bench_event (LIKE usage_usageevent INCLUDING ALL) PARTITION BY RANGE (occurred_at);
    CREATE TABLE bench_event_rest PARTITION OF bench_event DEFAULT WITH (autovacuum_enabled = off);
"""
FILL = "INSERT INTO bench_event SELECT * FROM usage_usageevent"
# The partitions that the load writes to, with their bounds.
DAYS = """
    SELECT 'bench_' || child.relname, pg_get_expr(child.relpartbound, child.oid)
      FROM pg_inherits AS link
      JOIN pg_class AS child ON child.oid = link.inhrelid
     WHERE link.inhparent = 'usage_usageevent'::regclass AND child.relname LIKE '%\\_2%'
     ORDER BY child.relname
"""
COLUMNS = (
    "id, batch_id, node_id, source, event_id, subscriber_id, api_key_id, model_id, weight_id, "
    "occurred_at, input_tokens, cached_tokens, output_tokens, reasoning_tokens, mt, late"
)


class Copying:
    """Copies prepared rows for a while, each time into what the event table holds then."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], draw: Draw) -> None:
        self._connection = connection
        self._draw = draw
        connection.execute(TWIN)
        for name, bound in connection.execute(DAYS).fetchall():
            table = f"CREATE TABLE {name} PARTITION OF bench_event {bound}"
            # Its sweeping up would fall into the rounds of the other side.
            connection.execute(f"{table} WITH (autovacuum_enabled = off)".encode())

    def rate(self, *, seconds: float, now: datetime) -> float:
        """Rows per second."""
        chunks = [self._lines(number, now) for number in range(64)]
        self._connection.execute("TRUNCATE bench_event")
        self._connection.execute(FILL)
        commits = 0
        with self._connection.cursor() as cursor:
            started = time.perf_counter()
            while time.perf_counter() - started < seconds:
                with cursor.copy(f"COPY bench_event ({COLUMNS}) FROM STDIN") as copy:
                    copy.write(chunks[commits % len(chunks)])
                commits += 1
            taken = time.perf_counter() - started
        return commits * ROWS / taken

    def _lines(self, number: int, now: datetime) -> bytes:
        lines = []
        for position, subscriber_id in enumerate(self._draw(ROWS)):
            at = now - timedelta(
                days=random.random() < YESTERDAY_SHARE, microseconds=random.randrange(60_000_000)
            )
            given, output = random.randint(50, 4000), random.randint(10, 1500)
            lines.append(
                f"{number * 16384 + position}\t{number}\t1\tbench/n1\t"
                f"chatcmpl-{random.getrandbits(128):032x}\t{subscriber_id}\t\\N\t1\t1\t"
                f"{at.isoformat()}\t{given}\t0\t{output}\t0\t{(given + output) * 1000}\tf\n"
            )
        return "".join(lines).encode()
