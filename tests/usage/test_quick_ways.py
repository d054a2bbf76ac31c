"""The quick ways of the common event answer as the patient ones do, whatever comes."""

import json
from datetime import UTC, datetime, timedelta
from struct import iter_unpack, unpack
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from usage.arriving import Arrival, resolved
from usage.batches import EVENTS_PER_BATCH, Batch
from usage.database import COPY_ZERO, MICROSECOND
from usage.decoding import Candidate, Refusal, _Reader, read_events
from usage.identity import _any_key_of, key_of
from usage.normalising import Counts
from usage.resolving import RatedWeight

from .conftest import BORN, HOUR, INSTANT, NOON, SECOND

HEX = "0192f3a45b6c7d8e9fa0b1c2d3e4f5a6"
MIDNIGHT = datetime(2026, 11, 23, 16, tzinfo=UTC)  # in the billing zone
DAY = timedelta(days=1)

pieces = st.sampled_from([HEX, HEX.upper(), HEX[:-1], HEX[:16] + " " + HEX[17:], "chatcmpl-", "1"])
ids = st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=4).map("".join)


@given(ids)
@example("")
@example("ab" * 15)
@example(f"１{HEX[1:]}")
@example(f"{HEX[:-2]}\n{HEX[-1]}")
@example(f" {HEX}")
@example(f"{HEX[:31]}g")
def test_the_quick_key_is_the_patient_one(id: str) -> None:
    assert key_of("wuxi/n1", id) == _any_key_of("wuxi/n1", id)


def patient(raws: list[bytes]) -> list[Candidate | Refusal]:
    reader = _Reader(NOON, plain=False)
    return [reader._read_any(position, raw) for position, raw in enumerate(raws)]


edges = st.sampled_from([MIDNIGHT, MIDNIGHT - DAY, NOON - 62 * DAY, NOON, NOON + 300 * SECOND])
near = st.sampled_from([timedelta(0), INSTANT, -INSTANT, HOUR, -HOUR, DAY, 90 * DAY])
texts = st.one_of(st.just("e1"), st.text(max_size=3), st.sampled_from(["a\x7f", "\u200b", "王"]))
events = st.builds(
    lambda id, source, subject, at, zone, prompt, cached, total: {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "subject": subject,
        "time": at.astimezone(zone).isoformat(),
        "data": {
            "model": "m",
            "usage": {
                "prompt_tokens": prompt,
                "total_tokens": total,
                "prompt_tokens_details": {"cached_tokens": cached},
            },
        },
    },
    *(texts, texts, texts),
    st.builds(lambda edge, by: edge + by, edges, near),
    st.sampled_from([UTC, NOON.tzinfo]),
    *(st.integers(-1, 3), st.integers(0, 3), st.one_of(st.none(), st.integers(0, 3))),
)


@given(st.lists(st.tuples(events, st.booleans()), max_size=6))
def test_the_quick_reading_is_the_patient_one(made: list[tuple[dict[str, Any], bool]]) -> None:
    raws = [json.dumps(event, ensure_ascii=escaped).encode() for event, escaped in made]
    assert read_events(raws, now=NOON) == patient(raws)


def test_the_edges_of_the_calendar_and_texts_cut_off_are_refused_alone() -> None:
    good: dict[str, Any] = {
        "specversion": "1.0",
        **{"id": "e1", "source": "n", "subject": "s", "time": NOON.isoformat()},
        "data": {"model": "m", "usage": {"prompt_tokens": 1}},
    }
    odd = [{"time": "0001-01-01T00:00:00+08:00"}, {"time": "9999-12-31T23:59:59-08:00"}]
    raws = [json.dumps(good | change).encode() for change in [{}, *odd, {"id": "\ud83d"}, {}]]
    read = read_events(raws, now=NOON)
    assert read == patient(raws)
    assert [isinstance(one, Candidate) for one in read] == [True, False, False, False, True]


def test_a_row_for_copy_holds_each_field_behind_its_length() -> None:
    at, counts = NOON - INSTANT, Counts(1, 2, 3, 4)
    weight = RatedWeight(31, 32, BORN, None, Counts(1000, 100, 4000, 5000))
    for position, source, id, key in ((0, "wuxi/n1", "请求 8", None), (7, "n", HEX, 2**40)):
        event = Candidate(position, b"", id, source, "s", "m", at, at.date(), counts)
        arrival = Arrival(Batch(77, 5, "events"))
        about: dict[str, Any] = {"subscriber_id": 2**50, "key_id": key, "weight": weight}
        arrival.take(resolved(arrival.batch, event, **about))
        [row], [usage] = arrival.rows, arrival.usages
        fields, rest = [], row[2:] + b"\1"
        while rest:
            [length] = unpack("!i", rest[:4])
            fields.append(None if length < 0 else rest[4 : 4 + length])
            rest = rest[4 + max(length, 0) :]
        texts = fields[3:5]
        numbers = [
            None if field is None else next(iter_unpack("!q", field))[0]
            for field in [*fields[:3], *fields[5:-1]]
        ]
        assert unpack("!h", row[:2]) == (16,) == (len(fields),)
        assert texts == [source.encode(), id.encode()]
        assert fields[-1] == b"\1"
        number, time = 77 * EVENTS_PER_BATCH + position, (at - COPY_ZERO) // MICROSECOND
        mt = weight.mt(counts)
        assert numbers == [number, 77, 5, 2**50, key, 32, 31, time, *counts, mt]
        assert (usage.id, usage.mt, usage.subscriber_id) == (number, mt, 2**50)
