"""What all properties share: how examples are kept apart, and what is drawn."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from accounts.models import Subscriber
from tests.usage.conftest import END, START, at
from usage import ingest as ingest_module
from usage import ledger, pools
from usage.arriving import Delivery
from usage.batches import BatchResult
from usage.ingest import ingest, portion_of
from usage.models import Bucket, InferenceModel, Node, Pool
from usage.remembering import Memory

# The suite tries the same few examples every time; PROPERTY_SCALE=20 tries others, and many.
SCALE = int(os.environ.get("PROPERTY_SCALE", "1"))

NOW = at("2026-11-24 12:00")
HOURS = [(0, 1440), (0, 480), (1320, 360)]  # all day, until eight, over midnight
# The month, one that is closed by NOW, and one that began just before.
PERIODS = [
    (START, END),
    (at("2026-11-10 00:00"), at("2026-11-22 00:00")),
    (at("2026-11-20 00:00"), END),
]


def bounded(examples: int, *, steps: int = 50) -> settings:
    """How long a property is attacked: that many examples, and of a program that many steps."""
    return settings(
        max_examples=examples * SCALE,
        stateful_step_count=steps,
        derandomize=SCALE == 1,
        database=None,
        deadline=None,
        # To shrink takes minutes with a database behind: only when somebody wants to know.
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if SCALE > 1 else [])],
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class World:
    """The people and things of an example, as they are before anything happens."""

    node: Node
    people: list[Subscriber]
    pool: Pool
    models: dict[str, InferenceModel]

    @contextmanager
    def example(self) -> Iterator[None]:
        """Whatever is written within is taken back at its end."""
        before = transaction.savepoint()
        try:
            yield
        finally:
            transaction.savepoint_rollback(before)

    def ingest(self, events: Sequence[dict[str, Any]], *, now: datetime = NOW) -> BatchResult:
        """A batch of the node."""
        return ingest(node=self.node, events=[json.dumps(one).encode() for one in events], now=now)

    def ingest_by(
        self, memory: Memory, events: Sequence[dict[str, Any]], *, now: datetime
    ) -> BatchResult:
        """The same by a process that remembers buckets. `ingest` keeps nothing within a
        transaction, as every example is; here each batch stands as if it were committed."""
        portion = portion_of(
            Delivery(self.node, [json.dumps(one).encode() for one in events]), now=now
        )
        counted = ingest_module._count(
            [portion.delivery], [portion.events], now, waits=True, fresh=[True], memory=memory
        )
        memory.keep(counted.hold, counted.own)
        [result] = counted.results
        assert result is not None
        return result

    def grant(self, draft: "BucketDraft", key: str, *, now: datetime) -> Bucket:
        """Open a drawn bucket of its person or, at 3, of the pool."""
        wanted = ledger.Grant(
            subscriber_id=None if draft.owner == 3 else self.people[draft.owner].pk,
            pool_id=self.pool.pk if draft.owner == 3 else None,
            kind=draft.kind,
            name="包",
            name_en="bucket",
            amount_mt=draft.mt,
            valid_from=draft.period[0],
            valid_until=draft.period[1],
            key=key,
            model_ids=(self.models[draft.model].pk,) if draft.model else (),
            minute_from=draft.hours[0],
            minute_until=draft.hours[1],
            rollover_percent=draft.rollover_percent,
            rollover_cap_mt=draft.mt,
        )
        if wanted.pool_id is not None:
            return pools.grant_to_pool(wanted=wanted, now=now)[0]
        one = {name: getattr(wanted, name) for name in wanted.__slots__ if name != "pool_id"}
        return ledger.grant(now=now, **one)[0]

    def join_pool(self, person: int, *, now: datetime, **caps: int) -> None:
        """Let a person draw on the pool."""
        pools.join(
            pool_id=self.pool.pk,
            subscriber_id=self.people[person].pk,
            actor="clerk",
            now=now,
            **caps,
        )


@dataclass(frozen=True)
class BucketDraft:
    """A bucket to be granted; the owner is a person's place, or 3 for the pool."""

    owner: int
    mt: int
    kind: str = "plan"
    period: tuple[datetime, datetime] = (START, END)
    hours: tuple[int, int] = (0, 1440)
    model: str = ""
    rollover_percent: int = 0


@dataclass(frozen=True)
class EventDraft:
    """An event to be reported: whose, how much, how long before NOW, of which model."""

    person: int
    tokens: int
    ago: timedelta
    model: str = "plain"

    def body(self, world: World, id: str, *, now: datetime = NOW) -> dict[str, Any]:
        """As the node reports it."""
        return {
            "specversion": "1.0",
            "id": id,
            "source": world.node.name,
            "type": "inference.completed",
            "subject": world.people[self.person].msisdn,
            "time": (now - self.ago).isoformat(),
            "data": {"model": self.model, "usage": {"prompt_tokens": self.tokens}},
        }

    @property
    def mt(self) -> int:
        """What it amounts to; both models count a prompt's token as one."""
        return self.tokens * 1000


def any_buckets(*, owners: Sequence[int] = (0, 1, 2, 3)) -> st.SearchStrategy[BucketDraft]:
    """Buckets of every kind, validity, hours and restriction."""
    return st.builds(
        BucketDraft,
        owner=st.sampled_from(owners),
        mt=st.integers(1, 200_000),
        kind=st.sampled_from(["plan", "pack", "promotion"]),
        period=st.sampled_from(PERIODS),
        hours=st.sampled_from(HOURS),
        model=st.sampled_from(["", "", "fine"]),
        rollover_percent=st.sampled_from([0, 50, 100]),
    )


def plain_buckets(*, owners: Sequence[int]) -> st.SearchStrategy[BucketDraft]:
    """Buckets that pay for everything of November alike."""
    return st.builds(
        BucketDraft,
        owner=st.sampled_from(owners),
        mt=st.integers(1, 200_000),
        kind=st.sampled_from(["plan", "pack", "promotion"]),
    )


def any_events(*, days: int) -> st.SearchStrategy[EventDraft]:
    """Events of the last `days` days before NOW."""
    return st.builds(
        EventDraft,
        person=st.integers(0, 2),
        tokens=st.integers(0, 120),
        ago=st.integers(0, days * 86_400).map(lambda seconds: timedelta(seconds=seconds)),
        model=st.sampled_from(["plain", "fine"]),
    )


def rows(statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """What a query finds."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def balances() -> dict[str, tuple[int, int]]:
    """(granted and adjusted, remaining) mt by the name of a bucket."""
    found = rows(
        f"SELECT bucket.name, bucket.granted_mt + bucket.adjusted_mt, bucket.remaining_mt"  # noqa: S608
        f"  FROM {BUCKETS} ORDER BY 1"
    )
    return {name: (granted, remaining) for name, granted, remaining in found}


def totals_by_person() -> dict[int, tuple[int, int, int, int]]:
    """(accepted, debited, priced, uncovered) mt by subscriber, from the rows of events."""
    return {
        owner: (int(accepted), int(debited), int(priced), int(uncovered))
        for owner, accepted, debited, priced, uncovered in rows(BY_PERSON)
    }


# Buckets under names that are the same in every example: the keys of those who were rolled over
# hold the number of the first one, so they are called after its key.
BUCKETS = """
    (SELECT bucket.id, COALESCE('rest of ' || former.key, bucket.key) AS name,
            bucket.granted_mt, bucket.adjusted_mt, bucket.remaining_mt, bucket.reserved_mt
       FROM usage_bucket AS bucket
       LEFT JOIN usage_bucket AS former ON bucket.key = 'rollover:' || former.id) AS bucket
"""

BY_PERSON = """
    WITH part AS (
        SELECT subscriber_id, mt AS accepted, 0 AS debited, 0 AS priced, 0 AS uncovered
          FROM usage_usageevent
         UNION ALL
        SELECT subscriber_id, mt, 0, 0, 0 FROM usage_amendment
         UNION ALL
        SELECT subscriber_id, 0, -amount_mt, 0, 0 FROM usage_ledgerentry
         WHERE kind IN ('debit', 'refund')
         UNION ALL
        SELECT subscriber_id, 0, 0, CASE WHEN priced THEN mt ELSE 0 END,
               CASE WHEN priced THEN 0 ELSE mt END
          FROM usage_overage
    )
    SELECT subscriber_id, SUM(accepted), SUM(debited), SUM(priced), SUM(uncovered)
      FROM part GROUP BY subscriber_id ORDER BY subscriber_id
"""
