"""The first month by calendar days: fen half up, tokens floored."""

import calendar
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.proration import Stub, fee_by_daily_rate, first_month


def test_ours_01_twelve_of_thirty_one_days_of_the_9_9_plan() -> None:
    share = first_month(price_fen=990, tokens=10_000_000, start=date(2026, 7, 20))
    assert share == Stub(days=12, of=31, fee_fen=383, tokens=3_870_967)


@pytest.mark.parametrize(
    ("price_fen", "tokens", "start", "expected"),
    [
        (2990, 40_000_000, date(2026, 11, 24), Stub(7, 30, 698, 9_333_333)),
        (990, 10_000_000, date(2026, 12, 31), Stub(1, 31, 32, 322_580)),
        (4990, 80_000_000, date(2026, 12, 16), Stub(16, 31, 2575, 41_290_322)),
    ],
)
def test_bill_01_first_month_by_calendar_days(
    price_fen: int, tokens: int, start: date, expected: Stub
) -> None:
    assert first_month(price_fen=price_fen, tokens=tokens, start=start) == expected


@pytest.mark.parametrize(
    ("fee", "days", "charge"), [(5000, 31, 5000), (5000, 30, 4920), (5000, 7, 1148)]
)
def test_bill_02_a_fixed_daily_rate_is_capped_at_the_fee(fee: int, days: int, charge: int) -> None:
    assert fee_by_daily_rate(price_fen=fee, days=days) == charge


@pytest.mark.parametrize(("day", "granted"), [(20, 38), (16, 51), (1, 100), (31, 3)])
def test_pror_07_a_joined_month_grants_whole_tokens_and_whole_days(day: int, granted: int) -> None:
    assert first_month(price_fen=0, tokens=100, start=date(2025, 1, day)).tokens == granted


def test_pror_07_a_join_at_the_end_is_the_whole_of_the_next_month() -> None:
    assert first_month(price_fen=100, tokens=100, start=date(2025, 2, 1)) == Stub(28, 28, 100, 100)


def test_a_stub_that_is_paid_for_never_grants_nothing() -> None:
    assert first_month(price_fen=1, tokens=1, start=date(2026, 1, 31)).tokens == 1


def test_a_plan_without_tokens_grants_none() -> None:
    assert first_month(price_fen=0, tokens=0, start=date(2026, 1, 31)).tokens == 0


@pytest.mark.parametrize(
    ("start", "days", "of"),
    [
        (date(2026, 2, 28), 1, 28),
        (date(2028, 2, 29), 1, 29),
        (date(2028, 2, 28), 2, 29),
        (date(2026, 4, 30), 1, 30),
        (date(2026, 5, 1), 31, 31),
    ],
)
def test_months_of_28_29_30_and_31_days(start: date, days: int, of: int) -> None:
    share = first_month(price_fen=990, tokens=10, start=start)
    assert (share.days, share.of) == (days, of)


@given(
    price_fen=st.integers(0, 10**9),
    tokens=st.integers(0, 10**12),
    start=st.dates(date(2026, 1, 1), date(2036, 12, 31)),
)
def test_a_share_lies_within_the_month_and_within_half_a_fen(
    price_fen: int, tokens: int, start: date
) -> None:
    share = first_month(price_fen=price_fen, tokens=tokens, start=start)
    assert share.of == calendar.monthrange(start.year, start.month)[1]
    assert 0 <= share.fee_fen <= price_fen
    assert 0 <= share.tokens <= tokens
    assert abs(2 * (share.fee_fen * share.of - price_fen * share.days)) <= share.of
    assert bool(share.tokens) == bool(tokens)
    if start.day == 1:
        assert (share.fee_fen, share.tokens) == (price_fen, tokens)
