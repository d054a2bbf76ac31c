"""Requests of nodes, made before the clock runs: an hour's mix of events as raw HTTP."""

import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from tests.bench.world import MODELS, SUBSCRIBERS, msisdn
from usage.periods import BILLING_ZONE

EVENT = (
    '{"specversion":"1.0","id":"%s","source":"%s","type":"inference.completed",'
    '"subject":"%s","time":"%s","data":{"model":"%s","usage":{"prompt_tokens":%d,'
    '"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d},'
    '"completion_tokens_details":{"reasoning_tokens":%d}}}}'
)
YESTERDAY_SHARE = 0.02
# Random ids as vLLM makes them are the worst case for the index over the keys; many engines and
# gateways number their requests in order of time instead.
ORDERED_IDS = os.environ.get("BENCH_IDS") == "ordered"
ZIPF_EXPONENT = 1.0

Draw = Callable[[int], list[int]]  # how many -> subscriber ids


def uniform(count: int) -> list[int]:
    """Any subscriber is as likely as any other."""
    return [random.randrange(SUBSCRIBERS) + 1 for _ in range(count)]


def within(first: int, last: int) -> Draw:
    """Uniformly among the subscribers first..last."""
    return lambda count: [random.randint(first, last) for _ in range(count)]


class Zipf:
    """The k-th busiest subscriber uses 1/k of what the busiest one uses; ranks lie scattered."""

    def __init__(self) -> None:
        total = 0.0
        self._steps = []
        for rank in range(1, SUBSCRIBERS + 1):
            total += rank**-ZIPF_EXPONENT
            self._steps.append(total)
        self._ids = list(range(1, SUBSCRIBERS + 1))
        random.Random(9).shuffle(self._ids)

    def __call__(self, count: int) -> list[int]:
        return random.choices(self._ids, cum_weights=self._steps, k=count)


def events(draw: Draw, count: int, *, source: str, now: datetime) -> list[str]:
    """JSON texts of `count` new events of the last minute, a few of them of the day before."""
    local = now.astimezone(BILLING_ZONE)
    made = []
    for subscriber_id in draw(count):
        given, output = random.randint(50, 4000), random.randint(10, 1500)
        cached, reasoning = random.randrange(given // 2), random.randrange(output // 2)
        at = local - timedelta(
            days=random.random() < YESTERDAY_SHARE, microseconds=random.randrange(60_000_000)
        )
        made.append(
            EVENT
            % (
                *(new_id(), source, msisdn(subscriber_id)),
                *(at.isoformat(timespec="milliseconds"), random.choice(MODELS), given, output),
                *(given + output, cached, reasoning),
            )
        )
    return made


def new_id() -> str:
    """The id of an event: random, or (BENCH_IDS=ordered) beginning with the time."""
    if ORDERED_IDS:
        return f"req-{time.time_ns():016x}-{random.getrandbits(24):06x}"
    return f"chatcmpl-{random.getrandbits(128):032x}"


def post(path: str, body: bytes, *, token: str, media: str = "application/json") -> bytes:
    """A POST request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str, *, token: str) -> bytes:
    """A GET request as it goes over the wire."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    return head.encode()


def batches(
    path: str, draw: Draw, *, size: int, count: int, token: str, source: str, now: datetime
) -> Iterator[bytes]:
    """`count` requests of `size` events each; a size of 1 is sent as a single event."""
    for _ in range(count):
        texts = events(draw, size, source=source, now=now)
        body = texts[0] if size == 1 else f"[{','.join(texts)}]"
        yield post(path, body.encode(), token=token)
