"""A pool of 1,000 members hit at once, against 1,000 separate subscribers."""

from tests.bench import bodies
from tests.bench.figures import Figure, Run, interleave
from tests.bench.ingest import send, site
from tests.bench.world import BIG_POOL, MEMBERS, SMALL_POOLS

FIRST_SEPARATE = BIG_POOL + SMALL_POOLS * MEMBERS + 1


def pool_spread(run: Run) -> Figure:
    """Batches of 1,000 by four clients; members have own buckets too, but the pool pays first."""
    together = bodies.within(1, BIG_POOL)
    apart = bodies.within(FIRST_SEPARATE, FIRST_SEPARATE + BIG_POOL - 1)
    with site() as at:
        for draw in (together, apart):
            send(at, draw, seconds=run.seconds)
        return interleave(
            run,
            lambda: send(at, together, seconds=run.seconds),
            lambda: send(at, apart, seconds=run.seconds),
            unit="events/s",
        )
