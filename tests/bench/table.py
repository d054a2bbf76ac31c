"""The nine figures: what is measured, against whom, and what is wanted."""

from tests.bench import billrun, ingest, pool, radius
from tests.bench.figures import Benchmark

COPY_RIVAL = (
    "COPY of the same rows into a twin of the event table with its (subscriber, time) index, "
    "1,000 a commit, one connection"
)
NAIVE_RIVAL = (
    "DRF ModelSerializer(many=True), per event get_or_create, select_for_update on the buckets, "
    "ledger create; a transaction an event, in the same web server"
)

BENCHMARKS = [
    Benchmark(
        key="ingest_copy",
        what="ingest over HTTP, batches of 1,000 by 4 clients, 100,000 subscribers alike",
        rival=COPY_RIVAL,
        must=0.13,
        aim=0.25,
        measure=ingest.ingest_copy,
    ),
    Benchmark(
        key="ingest_skewed",
        what="the same with a Zipf draw",
        rival=COPY_RIVAL,
        must=0.17,
        aim=0.30,
        measure=ingest.ingest_skewed,
    ),
    Benchmark(
        key="ingest_naive",
        what="as ingest_copy",
        rival=NAIVE_RIVAL,
        must=30,
        aim=60,
        measure=ingest.ingest_naive,
    ),
    Benchmark(
        key="single_naive",
        what="one event a request, 64 clients",
        rival="the same usual way, one event a request",
        must=7,
        aim=14,
        measure=ingest.single_naive,
    ),
    Benchmark(
        key="single_freeradius",
        what="as single_naive",
        rival=(
            "FreeRADIUS 3 of Debian, accounting-stop by its own queries into the same PostgreSQL, "
            "64 in flight; it keeps no balance"
        ),
        must=1.0,
        aim=1.5,
        measure=radius.single_freeradius,
    ),
    Benchmark(
        key="pool_spread",
        what="ingest for the 1,000 members of one pool at once, batches of 1,000 by 4 clients",
        rival="the same for 1,000 separate subscribers",
        must=0.8,
        aim=1.2,
        measure=pool.pool_spread,
    ),
    Benchmark(
        key="billrun_orm",
        what="the bill run over 100,000 accounts (40,000 with QUICK=1), a fee each, packs, overage",
        rival="a loop over ORM objects for a sample of 200 accounts, a transaction each",
        must=90,
        aim=200,
        measure=billrun.billrun_orm,
    ),
]
