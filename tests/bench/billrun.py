"""The bill run over 100,000 accounts, against a loop over ORM objects for a sample of them."""

import time
from datetime import date

from accounts.models import Account
from config import clock
from tests.bench import world
from tests.bench.figures import Figure, Run, interleave
from tests.bench.ingest import use
from tests.bench.naive import billing
from usage import periods

DATABASE = "bench_bills"
SAMPLE = 100  # accounts of the loop in each round
OWING, OWING_QUICK = 100_000, 25_000  # accounts that have something to pay

# A monthly fee for every account and a pack for every fourth one.
CHARGES = """
    INSERT INTO plans_charge (account_id, subscriber_id, kind, name, name_en, amount_fen,
                              tax_category, cycle, period_start, period_end, created_at, key)
    SELECT one.id, one.id, charged.kind, '词元包', 'Token plan', charged.fen, 'token_package',
           %(cycle)s, %(start)s, %(end)s, %(start)s,
           'bench:' || %(cycle)s || ':' || one.id || ':' || charged.kind
      FROM generate_series(1, %(accounts)s::int) AS one (id)
      JOIN (VALUES ('fee', 990), ('pack', 100)) AS charged (kind, fen)
        ON charged.kind = 'fee' OR one.id %% 4 = 0
"""

# Two models of priced overage, three rows each, for every tenth account.
OVERAGE = """
    INSERT INTO usage_overage (event_id, batch_id, subscriber_id, account_id, model_id, cycle,
                               occurred_at, recorded_at, mt, priced, fen_per_million)
    SELECT one.id, 0, one.id, one.id, model.id, %(cycle)s, %(start)s, %(start)s,
           1000000 + one.id, true, 400
      FROM generate_series(10, %(accounts)s::int, 10) AS one (id)
     CROSS JOIN (SELECT id FROM usage_inferencemodel ORDER BY id LIMIT 2) AS model
     CROSS JOIN generate_series(1, 3) AS row (n)
"""


def billrun_orm(run: Run) -> Figure:
    """Each round is a cycle of its own: the loop bills its sample, the run all the others."""
    from invoicing.billrun import bill_cycle

    accounts = OWING_QUICK if run.quick else OWING
    world.copy_of_world(DATABASE)
    use(DATABASE)
    now = clock.now()
    cycles = _past_cycles(periods.cycle_of(now), run.rounds)
    due = iter(cycles)
    state: dict[str, date] = {}
    try:
        with world.connect(DATABASE) as connection:

            def loop() -> float:
                state["cycle"] = cycle = next(due)
                about = {"cycle": cycle, "accounts": accounts}
                about |= {"start": periods.cycle_start(cycle), "end": periods.cycle_end(cycle)}
                connection.execute(CHARGES, about)
                connection.execute(OVERAGE, about)
                connection.execute("ANALYZE plans_charge, usage_overage, invoicing_invoice")
                connection.execute("CHECKPOINT")
                # An uneven step, so that the sample has as much overage as the others.
                sample = list(
                    Account.objects.filter(
                        id__in=range(1, accounts, accounts // SAMPLE - 1)[:SAMPLE]
                    )
                )
                started = time.perf_counter()
                billed = billing.bill(sample, cycle=cycle, now=now)
                return billed / (time.perf_counter() - started)

            def bill_run() -> float:
                started = time.perf_counter()
                result = bill_cycle(cycle=state["cycle"], now=now)
                taken = time.perf_counter() - started
                assert result.issued == accounts - SAMPLE, result
                return result.issued / taken

            return interleave(run, bill_run, loop, unit="invoices/s", rival_first=True)
    finally:
        from django.db import connection as ours

        ours.close()
        world.drop(DATABASE)


def _past_cycles(cycle: date, count: int) -> list[date]:
    """The `count` cycles before this one, oldest first."""
    found: list[date] = []
    for _ in range(count):
        cycle = periods.previous_cycle(cycle)
        found.append(cycle)
    return found[::-1]
