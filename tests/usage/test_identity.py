"""Keys of events: short, in the order of their ids, and never one for two identities."""

import uuid
from hashlib import blake2b
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Subscriber
from usage.database import fast_cursor
from usage.identity import counted_of, key_of
from usage.models import EventKey, Node

from .conftest import NOON, counts, event, send

UUID = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6"
HEX = UUID.replace("-", "")
SPELLINGS = [
    HEX,
    UUID,
    HEX.upper(),
    UUID.upper(),
    *(f"{word}{HEX}" for word in ("chatcmpl-", "cmpl-", "req-", "gen-", "msg_", "请求-")),
    f"chatcmpl-{UUID}",
    f"chatcmpl-{HEX}-0",
    f"chatcmpl-{HEX}-1",
    f"chatcmpl-{HEX}.1",
    f"{UUID}_12",
]

migration = import_module("usage.migrations.0025_compact_keys")

digits = st.sampled_from([HEX, HEX.upper(), UUID, UUID.upper(), UUID[:-1], HEX + "0", "1" * 32])
ids = st.lists(
    st.one_of(digits, st.sampled_from("-_.:a0x\\é "), st.text("abcdef0123456789-", max_size=9)),
    min_size=1,
    max_size=5,
).map("".join)


@pytest.mark.parametrize("id", SPELLINGS)
def test_an_id_that_holds_a_uuid_takes_23_bytes_that_begin_with_it(id: str) -> None:
    key = key_of("wuxi/n1", id)
    assert len(key) == 23
    assert key[:16] == uuid.UUID(UUID).bytes


def test_every_spelling_and_every_source_has_a_key_of_its_own() -> None:
    keys = {key_of(source, id) for source in ("wuxi/n1", "wuxi/n2", "wuxi") for id in SPELLINGS}
    assert len(keys) == 3 * len(SPELLINGS)


@pytest.mark.parametrize(
    "id",
    [
        "req-000123",
        "x",
        "01J9ZQ4Y5T8R2M3N4P5Q6R7S8T",
        f"20261124-{HEX}",  # what comes before the UUID grows with time
        HEX[:-1],
        f"19a2b3c4-{HEX}",
        f"{HEX}0",
        f"abc{HEX}",
        UUID[:-2] + "Ab",  # two cases mixed
        f"{HEX}-1234",
        f"{HEX} ",
    ],
)
def test_any_other_id_is_kept_as_it_is_behind_the_tag_of_its_source(id: str) -> None:
    assert key_of("wuxi/n1", id)[7:].rstrip(b"\0") == id.encode()


def test_a_text_as_long_as_a_uuid_and_its_tag_is_told_from_one() -> None:
    assert len(key_of("wuxi/n1", "req-000000000016")) == 24


def test_ids_that_grow_have_keys_that_grow() -> None:
    counted = [key_of("wuxi/n1", f"req-{number:06}") for number in range(0, 5000, 7)]
    timed = [
        key_of("wuxi/n1", f"chatcmpl-{number << 80 | 0x7 << 76:032x}") for number in range(900)
    ]
    assert counted == sorted(counted)
    assert timed == sorted(timed)


@given(first=ids, second=ids)
def test_two_ids_have_two_keys(first: str, second: str) -> None:
    assert (key_of("n", first) == key_of("n", second)) == (first == second)


@given(ids)
def test_the_migration_makes_the_keys_that_are_looked_for(id: str) -> None:
    assert migration.short_of(f"wuxi/n1\0{id}".encode()) == key_of("wuxi/n1", id)


OLD = [("n1", f"chatcmpl-{HEX}"), ("n1", "req-7"), ("n2", UUID), ("n2", "请求 8"), ("n1", "a" * 16)]


def store_old(identities: list[tuple[str, str]]) -> None:
    for source, id in identities:
        key = f"{source}\0{id}".encode()
        EventKey.objects.create(key=key, content=b"c" * 16, day=NOON.date())


def upgrade() -> None:
    editor = SimpleNamespace(connection=connection)
    migration.shorten(None, editor)


def test_the_migration_finds_old_keys_in_every_block_and_may_be_run_again(db: None) -> None:
    many = [("n1", f"{HEX[:-6]}{number:06x}") for number in range(9000)]
    rows = [
        EventKey(key=f"{source}\0{id}".encode(), content=b"c" * 16, day=NOON.date())
        for source, id in many
    ]
    EventKey.objects.bulk_create(rows[:6000])
    upgrade()
    EventKey.objects.bulk_create(rows[6000:])  # as if it had been stopped on the way
    upgrade()
    upgrade()
    assert EventKey.objects.count() == len(many)
    with fast_cursor() as cursor:
        assert counted_of(cursor, many) == set(many)


def test_old_keys_of_every_kind_are_recognised_after_the_migration(db: None) -> None:
    store_old(OLD)
    upgrade()
    with fast_cursor() as cursor:
        assert counted_of(cursor, [*OLD, ("n1", UUID), ("n1", "req-8")]) == set(OLD)


def test_an_event_counted_before_the_migration_is_a_duplicate_or_a_conflict_after_it(
    node: Node, subscriber: Subscriber
) -> None:
    first = event(f"chatcmpl-{HEX}", 10)
    assert counts(send(node, first)) == (1, 0, 0, 0)
    text = "+8613900000001\0plain\x0010\x000\x000\x000"  # as the former version had it
    content = blake2b(text.encode(), digest_size=16).digest()
    EventKey.objects.update(key=f"n1\0chatcmpl-{HEX}".encode(), content=content)
    upgrade()
    assert counts(send(node, first, event(f"chatcmpl-{HEX}", 11))) == (0, 1, 1, 0)
