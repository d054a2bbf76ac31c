"""When the carrier of these tests lives."""

from datetime import UTC, date, datetime, timedelta

NOON = datetime(2026, 10, 5, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
OCTOBER = date(2026, 10, 1)


def before() -> datetime:
    """An hour before now, so that all of it lies in the past."""
    return NOON - timedelta(hours=1)
