"""Gap-free invoice numbers: 20 digits, year 2, region 2, channel 1 and serial 15.

The series row is locked in the transaction that writes the invoices: what rolls back gives its
numbers back, and a second writer waits for the first one's commit.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from usage.periods import day_of

from .models import InvoiceSeries

SERIAL_DIGITS = 15


@dataclass(frozen=True)
class DrawnNumbers:
    """A row of consecutive serials: `first` to `first + count - 1` behind one prefix."""

    prefix: str
    first: int
    count: int


def prefix_of(*, year: int, region: int, channel: int) -> str:
    """The first five digits of a number; the year is a full one such as 2026."""
    assert 0 <= region < 100 and 0 <= channel < 10
    return f"{year % 100:02d}{region:02d}{channel}"


def number_of(*, prefix: str, serial: int) -> str:
    """The whole number, 20 digits."""
    assert 0 < serial < 10**SERIAL_DIGITS
    return f"{prefix}{serial:0{SERIAL_DIGITS}d}"


def draw(*, count: int, now: datetime) -> DrawnNumbers:
    """Take `count` numbers of this year's series; must run inside the invoices' transaction.

    The year is the billing-zone year of `now`. Locks the series row until the transaction ends, so
    callers draw last.
    """
    year, region, channel = day_of(now).year, settings.INVOICE_REGION, settings.INVOICE_CHANNEL
    key = {"year": year, "region": region, "channel": channel}
    InvoiceSeries.objects.bulk_create([InvoiceSeries(**key)], ignore_conflicts=True)
    series = InvoiceSeries.objects.select_for_update().get(**key)
    first = series.last_number + 1
    series.last_number += count
    series.save(update_fields=["last_number"])
    return DrawnNumbers(prefix_of(year=year, region=region, channel=channel), first, count)
