"""The nine figures: what is measured, against whom, and what is wanted."""

from tests.bench import billrun, growth, ingest, pool, quota, radius
from tests.bench.figures import Benchmark

COPY_RIVAL = (
    "COPY of the same rows into a twin of the event table, rows and (subscriber, time) index, "
    "1,000 a commit, one connection; no autovacuum of the twin"
)
NAIVE_RIVAL = (
    "DRF ModelSerializer(many=True), per event get_or_create, select_for_update on the buckets, "
    "ledger create; a transaction an event, in the same web server"
)

BENCHMARKS = [
    Benchmark(
        key="ingest_copy",
        what="ingest over HTTP, batches of 1,000 by 16 clients, 100,000 subscribers alike",
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
        key="quota_psycopg",
        what="p99 of quota create and release over HTTP, 8 clients",
        rival="the statements that these send, by bare psycopg through a pool, 8 threads",
        must=4,
        aim=2,
        measure=quota.quota_psycopg,
        lower=True,
    ),
    Benchmark(
        key="pool_spread",
        what="ingest for the 1,000 members of one pool at once, batches of 1,000 by 16 clients",
        rival="the same for 1,000 separate subscribers",
        must=0.8,
        aim=1.2,
        measure=pool.pool_spread,
    ),
    Benchmark(
        key="growth_20m",
        what="ingest as in ingest_copy, into a database that holds 20 million events",
        rival="the same into one that holds none, both in the same server",
        must=0.85,
        aim=0.97,
        measure=growth.growth_20m,
        quick=False,
    ),
    Benchmark(
        key="billrun_orm",
        what="the bill run over 100,000 accounts (25,000 with QUICK=1), a fee each, packs, overage",
        rival="a loop over ORM objects for a sample of 100 accounts, a transaction each",
        must=90,
        aim=200,
        measure=billrun.billrun_orm,
    ),
]
