"""Who takes part: about 500 subscribers by a seeded, skewed draw, and which request is whose.

Pure and repeatable: the replay and the independent count both read the same script.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate

from usage.periods import cycle_start, next_cycle

from .trace import TraceRequest

SEED = 9_900_000
MEMBERS = 500
REQUESTS_PER_BATCH = 200
NODES = ("wuxi-sn1-n1", "wuxi-sn1-n2", "wuxi-sn2-n1", "wuxi-sn2-n2")

# What is bought, and how often of a hundred; a pack alone is the one-yuan customer without a plan.
OFFERS = {
    "token-9.9": 38,
    "token-29.9": 12,
    "token-49.9": 5,
    "dev-39.9": 8,
    "dev-159.9": 3,
    "dev-299.9": 1,
    "payg-4": 9,
    "pack-250k": 9,
    "pack-400k": 15,
}
MODELS = {"telechat": 40, "deepseek-v3.2": 25, "glm-5": 15, "telechat-x10": 20}


@dataclass(frozen=True, slots=True)
class Member:
    """A subscriber of the demo; who is `thrifty` buys no pack when the tokens are gone."""

    msisdn: str
    offer: str
    joins: datetime
    thrifty: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of the trace with its member, model and the part of its input from a cache."""

    number: int
    request: TraceRequest
    member: Member
    model: str
    cached: int


def members(cycle: date) -> list[Member]:
    """The subscribers, heaviest user first; a third of them joins in the course of the month."""
    draw = random.Random(SEED)  # noqa: S311 (a repeatable draw, not a secret)
    start = cycle_start(cycle)
    days = (next_cycle(cycle) - cycle).days
    made = []
    for number in range(MEMBERS):
        offer = draw.choices(list(OFFERS), list(OFFERS.values()))[0]
        day = 0 if draw.random() < 0.67 else draw.randrange(1, days - 1)
        joins = start + timedelta(days=day)
        made.append(Member(f"+86199{number:08d}", offer, joins, draw.random() < 0.5))
    return made


def script(cycle: date, trace: Sequence[TraceRequest]) -> list[list[Turn]]:
    """The batches of the month: each request is one's who has joined by then, drawn so that few
    use much and many use little."""
    draw = random.Random(SEED + 1)  # noqa: S311
    cast = members(cycle)
    shares = list(accumulate(1 / (rank + 2) for rank in range(len(cast))))
    turns = []
    for number, request in enumerate(trace):
        while True:
            member = draw.choices(cast, cum_weights=shares)[0]
            if member.joins <= request.at:
                break
        model = draw.choices(list(MODELS), list(MODELS.values()))[0]
        cached = request.context * draw.randrange(0, 90) // 100 if draw.random() < 0.3 else 0
        turns.append(Turn(number, request, member, model, cached))
    return [
        turns[start : start + REQUESTS_PER_BATCH]
        for start in range(0, len(turns), REQUESTS_PER_BATCH)
    ]
