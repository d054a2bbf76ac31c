"""Filters of the portal's templates over config.formatting, in the reader's language and zone."""

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import get_language, gettext, pgettext

from config import formatting

register = template.Library()

register.filter("exact", formatting.exact_tokens)
register.filter("grouped", formatting.grouped)
register.filter("yuan", formatting.yuan)
register.filter("phone", formatting.phone)
register.filter("percent_of", formatting.percent)


@register.filter
def tokens(mt: int) -> str:
    """Millitokens, short."""
    return formatting.short_tokens(mt, get_language() or "")


@register.filter
def token_count(count: int) -> str:
    """Whole tokens, short."""
    return formatting.short_tokens(count * formatting.MT_PER_TOKEN, get_language() or "")


@register.filter
def tokens_number(mt: int) -> str:
    """The number of a short amount, without its unit."""
    return formatting.short_amount(mt // formatting.MT_PER_TOKEN, get_language() or "")[0]


@register.filter
def tokens_unit(mt: int) -> str:
    """The unit of a short amount: 万, M or nothing."""
    return formatting.short_amount(mt // formatting.MT_PER_TOKEN, get_language() or "")[1]


@register.filter
def hours(item: Any) -> str:
    """The hours of the day in which a bucket or an offer pays, unless it is all day."""
    return formatting.hours(item.minute_from, item.minute_until)


@register.filter
def until(end: datetime) -> str:
    """The last minute before a half-open end, in the billing zone; ends in year 9999 are never."""
    if end.year >= 9999:
        return gettext("no expiry")
    last = timezone.localtime(end) - timedelta(seconds=1)
    # Translators: PHP-style date format, "30 Nov, 23:59".
    return date_format(last, pgettext("date and time", "j M, H:i"))


@register.filter
def moment(instant: datetime | None) -> str:
    """An instant with its year, in the billing zone."""
    if instant is None:
        return ""
    # Translators: PHP-style date format, "1 Dec 2026, 00:05".
    return date_format(timezone.localtime(instant), pgettext("full date and time", "j M Y, H:i"))


@register.filter
def to_the_second(instant: datetime) -> str:
    """An instant as evidence shows it, in the billing zone."""
    return timezone.localtime(instant).strftime("%Y-%m-%d %H:%M:%S")


@register.filter
def day(instant: Any) -> str:
    """A date, or the billing zone's date of an instant, with its year."""
    local = timezone.localtime(instant) if isinstance(instant, datetime) else instant
    # Translators: PHP-style date format, "1 Dec 2026".
    return date_format(local, pgettext("date", "j M Y"))


@register.filter
def short_day(instant: datetime) -> str:
    """The billing zone's date of an instant, without its year."""
    # Translators: PHP-style date format, "1 Dec".
    return date_format(timezone.localtime(instant), pgettext("short date", "j M"))


@register.filter
def month(cycle: Any) -> str:
    """A cycle by the name of its month."""
    # Translators: PHP-style date format, "October 2026".
    return date_format(cycle, pgettext("month", "F Y"))


@register.filter
def in_language(item: Any, field: str = "name") -> str:
    """The Chinese name of a thing, or its English one when that is being read and exists."""
    english = getattr(item, f"{field}_en", "")
    chinese = bool((get_language() or "").startswith("zh"))
    return str(getattr(item, field) if chinese or not english else english)
