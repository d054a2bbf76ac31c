"""Parts of a month, in exact integers. Pure: knows neither Django nor the clock."""

import calendar
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Stub:
    """What a subscription pays and gets for `days` of a month that has `of` days."""

    days: int
    of: int
    fee_fen: int
    tokens: int


def first_month(*, price_fen: int, tokens: int, start: date) -> Stub:
    """The share of a month from `start` (a billing-zone day, counted whole) to the month's end.

    The fee in fen is rounded half up; standard tokens are floored, but a plan that sells tokens
    never grants none for a day that is paid for. On the first of a month the share is the whole.
    """
    of = calendar.monthrange(start.year, start.month)[1]
    days = of - start.day + 1
    part = tokens * days // of
    if tokens and not part:
        part = 1
    return Stub(days=days, of=of, fee_fen=(2 * price_fen * days + of) // (2 * of), tokens=part)


def fee_by_daily_rate(*, price_fen: int, days: int) -> int:
    """The other rule carriers use: days at a fixed rate of a 365th of the year's fees.

    The daily rate in fen is rounded half up once; the sum never exceeds the monthly fee.
    """
    daily_fen = (2 * 12 * price_fen + 365) // (2 * 365)
    return min(price_fen, daily_fen * days)
