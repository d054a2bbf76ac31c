"""Amounts are shown short, exact where asked, and never as more than there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import formatting


@pytest.mark.parametrize(
    ("tokens", "chinese", "english"),
    [
        (0, "0", "0"),
        (9_999, "9,999", "9,999"),
        (10_000, "1 万", "10 K"),
        (250_000, "25 万", "250 K"),
        (1_234_567, "123.4 万", "1.23 M"),
        (10_000_000, "1,000 万", "10 M"),
        (99_999_999, "9,999.9 万", "99.99 M"),
        (150_000_000, "1.5 亿", "150 M"),
        (2_345_678_901, "23.45 亿", "2.34 B"),
        (-1_234_567, "-123.4 万", "-1.23 M"),
    ],
)
def test_tokens_are_short_in_the_units_of_the_language(
    tokens: int, chinese: str, english: str
) -> None:
    assert formatting.short_tokens(tokens * 1000, "zh-hans") == chinese
    assert formatting.short_tokens(tokens * 1000, "en") == english


@given(tokens=st.integers(0, 10**15), language=st.sampled_from(["zh-hans", "en"]))
def test_a_short_amount_never_promises_more_than_there_is(tokens: int, language: str) -> None:
    number, unit = formatting.short_amount(tokens, language)
    units = {"": 1, "万": 10**4, "亿": 10**8, "K": 10**3, "M": 10**6, "B": 10**9}
    whole, _, decimals = number.replace(",", "").partition(".")
    shown = int(whole + decimals) * units[unit] // 10 ** len(decimals)
    assert shown <= tokens
    assert tokens - shown <= tokens // 100


@pytest.mark.parametrize(
    ("mt", "text"),
    [(0, "0"), (1, "0.001"), (1500, "1.5"), (7_850_000_000, "7,850,000"), (-1500, "-1.5")],
)
def test_exact_tokens_keep_every_millitoken(mt: int, text: str) -> None:
    assert formatting.exact_tokens(mt) == text


@pytest.mark.parametrize(
    ("fen", "text"), [(0, "¥0.00"), (5, "¥0.05"), (990, "¥9.90"), (123_456, "¥1,234.56")]
)
def test_money_is_yuan_with_two_decimals(fen: int, text: str) -> None:
    assert formatting.yuan(fen) == text
    assert formatting.yuan(-fen) == ("-" if fen else "") + text


@pytest.mark.parametrize(
    ("part", "whole", "percent"),
    [(0, 0, 0), (0, 9, 0), (1, 10_000, 1), (999, 1000, 99), (9, 9, 100)],
)
def test_a_percentage_is_hundred_only_when_whole_and_zero_only_when_none(
    part: int, whole: int, percent: int
) -> None:
    assert formatting.percent(part, whole) == percent


def test_a_chinese_number_is_grouped_as_people_read_it() -> None:
    assert formatting.phone("+8613900000001") == "139 0000 0001"
    assert formatting.phone("+4930123456") == "+4930123456"
