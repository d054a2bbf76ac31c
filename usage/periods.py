"""Cycles and days of the billing zone: half open, cut in Asia/Shanghai, stored as UTC instants.

A cycle is named by the first day of its month. Pure: no Django, no clock.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from config.errors import DomainError

BILLING_ZONE = ZoneInfo("Asia/Shanghai")
# Beside the ends of the calendar the arithmetic overflows, and the last year stands for "never".
FIRST_DAY = date(1970, 1, 1)
LAST_DAY = date(9998, 12, 31)


class InvalidPeriod(DomainError):
    """A cycle or day that cannot be read."""

    code = "invalid_period"
    status = 400
    title = "The period cannot be read"


def day_of(instant: datetime) -> date:
    """The billing-zone day that holds an aware instant."""
    return instant.astimezone(BILLING_ZONE).date()


class Days:
    """The billing-zone days of many instants that mostly fall on the same one."""

    def __init__(self) -> None:
        self._start = self._end = datetime.max.replace(tzinfo=UTC)
        self._day = date.max

    def of(self, instant: datetime) -> date:
        """As `day_of`."""
        if not self._start <= instant < self._end:
            self._day = day_of(instant)
            self._start, self._end = day_start(self._day), day_end(self._day)
        return self._day


def cycle_of(instant: datetime) -> date:
    """The cycle that holds an aware instant, as the first day of its month."""
    return day_of(instant).replace(day=1)


def day_start(day: date) -> datetime:
    """The UTC instant at which a billing-zone day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=BILLING_ZONE).astimezone(UTC)


def day_end(day: date) -> datetime:
    """The UTC instant at which the next billing-zone day begins."""
    return day_start(day + timedelta(days=1))


def next_cycle(cycle: date) -> date:
    """The cycle after this one."""
    return (cycle.replace(day=1) + timedelta(days=32)).replace(day=1)


def previous_cycle(cycle: date) -> date:
    """The cycle before this one."""
    return (cycle.replace(day=1) - timedelta(days=1)).replace(day=1)


def cycle_start(cycle: date) -> datetime:
    """The UTC instant at which the cycle begins."""
    return day_start(cycle.replace(day=1))


def cycle_end(cycle: date) -> datetime:
    """The UTC instant at which the cycle ends, which is the start of the next one."""
    return day_start(next_cycle(cycle))


def parse_cycle(text: str) -> date:
    """Read `2026-10` as the cycle 2026-10-01; raises InvalidPeriod."""
    try:
        return in_calendar(datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date())
    except ValueError:
        raise InvalidPeriod(f"{text!r} is not a month: write it as 2026-10.") from None


def parse_day(text: str) -> date:
    """Read `2026-10-01` as a day; raises InvalidPeriod."""
    try:
        return in_calendar(date.fromisoformat(text))
    except ValueError:
        raise InvalidPeriod(f"{text!r} is not a day: write it as 2026-10-01.") from None


def in_calendar(day: date) -> date:
    """The day itself, if it can be counted with; raises InvalidPeriod."""
    if not FIRST_DAY <= day <= LAST_DAY:
        raise InvalidPeriod(f"{day} is too far away: name a day from {FIRST_DAY} to {LAST_DAY}.")
    return day


def minute_of_day(instant: datetime) -> int:
    """Minutes since the billing-zone midnight, 0 to 1439."""
    local = instant.astimezone(BILLING_ZONE)
    return local.hour * 60 + local.minute
