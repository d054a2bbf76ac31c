"""The carrier that is tormented: nodes with their keys, people with plans, a pool with members."""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import StringIO

from django.core.management import call_command

from accounts.keys import issue_key
from accounts.models import ApiKey
from config import clock
from plans.subscribing import sign_up
from usage import pools
from usage.ledger import Grant
from usage.models import UNCAPPED
from usage.nodes import create_node
from usage.periods import cycle_end, cycle_of, cycle_start, previous_cycle

PLANS = ("token-9.9", "token-9.9", "token-29.9", "payg-4")
SOURCE = "fleet"  # all nodes speak for it, so each may report what another did
CAP_MT = 3_000_000_000


@dataclass(frozen=True)
class Carrier:
    """Who there is; `cycle` is the month in which all happens (the last one by the wall clock)."""

    cycle: date
    node_keys: list[str]
    msisdns: list[str]
    subscriber_keys: list[str]


def move_clock_to(instant: datetime) -> None:
    """Let it be this instant for every process of the system."""
    clock.set_offset(instant - datetime.now(UTC))


def make_carrier(*, people: int, nodes: int, dice: random.Random) -> Carrier:
    """Migrate an empty database and fill it; the clock then stands late in last month."""
    call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
    for command in ("setup_roles", "load_catalogue", "make_partitions"):
        call_command(command, stdout=StringIO(), stderr=StringIO())
    cycle = previous_cycle(cycle_of(clock.now()))
    start = cycle_start(cycle)
    move_clock_to(cycle_end(cycle) - timedelta(days=7, hours=3))
    keys = [
        create_node(name=f"node-{number}", sources=[SOURCE], now=start)[1]
        for number in range(nodes)
    ]
    signed_up = [
        sign_up(
            msisdn=f"+8613800{number:06}", plan_code=dice.choice(PLANS), starts_at=start,
            actor="chaos", now=start,
        )
        for number in range(people)
    ]  # fmt: skip
    _share(signed_up[0].account_id, [one.pk for one in signed_up[: people // 3]], cycle)
    subscriber_keys = [
        issue_key(kind=ApiKey.Kind.SUBSCRIBER, subscriber_id=one.pk, name="chaos", now=start)[1]
        for one in signed_up
    ]
    return Carrier(cycle, keys, [one.msisdn for one in signed_up], subscriber_keys)


def _share(account_id: int, members: list[int], cycle: date) -> None:
    """A pool of these members, every second of whom is capped."""
    start, end = cycle_start(cycle), cycle_end(cycle)
    pool = pools.create_pool(account_id=account_id, name="home", kind="family", now=start)
    for place, member in enumerate(members):
        cap_mt = CAP_MT if place % 2 else UNCAPPED
        pools.join(
            pool_id=pool.pk, subscriber_id=member, actor="chaos", now=start, cycle_cap_mt=cap_mt
        )
    wanted = Grant(
        pool_id=pool.pk, kind="plan", name="共享", name_en="shared", amount_mt=10 * CAP_MT,
        key="chaos-pool", valid_from=start, valid_until=end,
    )  # fmt: skip
    pools.grant_to_pool(wanted=wanted, now=start)
