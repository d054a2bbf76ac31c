"""Gap-free invoice numbers: 20 digits, year 2, region 2, channel 1 and serial 15.

The series row is held in the transaction that writes the invoices: what rolls back gives its
numbers back, and a second writer waits for the first one's commit.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from usage.periods import day_of

from .models import InvoiceSeries

SERIAL_DIGITS = 15


@dataclass(frozen=True)
class HeldNumbers:
    """The series while its row is locked: `first` is the next free serial behind the prefix."""

    series: InvoiceSeries
    prefix: str
    first: int

    def take(self, *, count: int) -> None:
        """Use up the serials `first` to `first + count - 1`; once, in the same transaction."""
        assert count >= 0 and self.series.last_number == self.first - 1
        self.series.last_number += count
        self.series.save(update_fields=["last_number"])


def prefix_of(*, year: int, region: int, channel: int) -> str:
    """The first five digits of a number; the year is a full one such as 2026."""
    assert 0 <= region < 100 and 0 <= channel < 10
    return f"{year % 100:02d}{region:02d}{channel}"


def number_of(*, prefix: str, serial: int) -> str:
    """The whole number, 20 digits."""
    assert 0 < serial < 10**SERIAL_DIGITS
    return f"{prefix}{serial:0{SERIAL_DIGITS}d}"


def hold(*, now: datetime) -> HeldNumbers:
    """Lock this year's series until the transaction ends; it must be that of the invoices.

    The year is the billing-zone year of `now`. Numbers count as used when they are taken.
    """
    year, region, channel = day_of(now).year, settings.INVOICE_REGION, settings.INVOICE_CHANNEL
    key = {"year": year, "region": region, "channel": channel}
    InvoiceSeries.objects.bulk_create([InvoiceSeries(**key)], ignore_conflicts=True)
    series = InvoiceSeries.objects.select_for_update().get(**key)
    prefix = prefix_of(year=year, region=region, channel=channel)
    return HeldNumbers(series, prefix, series.last_number + 1)
