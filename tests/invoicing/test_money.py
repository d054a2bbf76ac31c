"""Money is integer fen; every division is rounded once, half up, and nothing is lost by it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing import money

FEN = st.integers(min_value=-(10**13), max_value=10**13)
RATE = st.integers(min_value=0, max_value=9_999)


@pytest.mark.parametrize(
    ("gross_fen", "rate_bp", "net_fen", "vat_fen"),
    [(990, 600, 934, 56), (990, 900, 908, 82), (29_990, 600, 28_292, 1_698), (0, 600, 0, 0)],
)
def test_vat_is_taken_out_of_the_price(
    gross_fen: int, rate_bp: int, net_fen: int, vat_fen: int
) -> None:
    assert money.vat_inside(gross_fen, rate_bp) == (net_fen, vat_fen)


@given(FEN, RATE)
def test_net_and_vat_are_the_gross_and_net_is_the_nearest_fen(gross_fen: int, rate_bp: int) -> None:
    net_fen, vat_fen = money.vat_inside(gross_fen, rate_bp)
    assert net_fen + vat_fen == gross_fen
    assert abs(net_fen - Fraction(gross_fen * 10_000, 10_000 + rate_bp)) <= Fraction(1, 2)


@given(FEN, RATE)
def test_a_credit_mirrors_its_charge(gross_fen: int, rate_bp: int) -> None:
    net_fen, vat_fen = money.vat_inside(gross_fen, rate_bp)
    assert money.vat_inside(-gross_fen, rate_bp) == (-net_fen, -vat_fen)


@pytest.mark.parametrize(
    ("mt", "fen_per_million", "fen"),
    [
        (1_000_000_000, 400, 400),  # a million standard tokens
        (1_250_000, 400, 1),  # half a fen goes up
        (1_249_999, 400, 0),
        (3_750_000, 400, 2),
        (12_345_678_901, 400, 4_938),
    ],
)
def test_overage_is_rounded_half_up_once(mt: int, fen_per_million: int, fen: int) -> None:
    assert money.overage_fen(mt, fen_per_million) == fen


@given(st.lists(st.integers(min_value=1, max_value=10**12), min_size=1, max_size=50))
def test_a_line_never_differs_from_its_exact_price_by_more_than_half_a_fen(mts: list[int]) -> None:
    exact = Fraction(sum(mt * 400 for mt in mts), money.MT_PER_MILLION_TOKENS)
    assert abs(money.overage_fen(sum(mts), 400) - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("fen", "text"),
    [
        (0, "零元整"),
        (1, "壹分"),
        (10, "壹角整"),
        (990, "玖元玖角整"),
        (1_000, "壹拾元整"),
        (1_005, "壹拾元零伍分"),
        (29_990, "贰佰玖拾玖元玖角整"),
        (100_000, "壹仟元整"),
        (123_456, "壹仟贰佰叁拾肆元伍角陆分"),
        (10_000_100, "壹拾万零壹元整"),
        (1_000_000_000_100, "壹佰亿零壹元整"),
        (-698, "负陆元玖角捌分"),
    ],
)
def test_an_amount_is_written_in_chinese_capitals(fen: int, text: str) -> None:
    assert money.in_chinese_capitals(fen) == text


@given(st.integers(min_value=0, max_value=10**15))
def test_capitals_read_back_to_the_same_amount(fen: int) -> None:
    assert _read_capitals(money.in_chinese_capitals(fen)) == fen


@pytest.mark.parametrize(
    ("fen", "text"), [(0, "0.00"), (5, "0.05"), (123_450, "1,234.50"), (-990, "-9.90")]
)
def test_yuan_are_written_with_two_decimals(fen: int, text: str) -> None:
    assert money.format_yuan(fen) == text


def _read_capitals(text: str) -> int:
    yuan, _, rest = text.partition("元") if "元" in text else ("", "", text)
    fen = _read_number(yuan) * 100
    for unit, size in [("角", 10), ("分", 1)]:
        if unit in rest:
            digit, _, rest = rest.partition(unit)
            fen += money.DIGITS.index(digit[-1]) * size
    return fen


def _read_number(text: str) -> int:
    for size, unit in money.UNITS:
        if unit in text:
            high, _, low = text.rpartition(unit) if size >= 10**4 else text.partition(unit)
            return _read_number(high) * size + _read_number(low)
    text = text.lstrip("零") or "零"
    return money.DIGITS.index(text)
