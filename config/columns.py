"""Columns for people: money in yuan, millitokens as standard tokens, counts with separators.

The unit ends a column's name (`_fen`, `_mt`), so the staff site needs no word about it per page.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, IntegerField, Model

from config.formatting import exact_tokens, grouped, yuan
from config.labels import LABELS

Shown = Callable[[Model], str | None]
APPS = ("accounts", "usage", "plans", "invoicing")
NEVER_COUNTS = ("year", "number", "id", "key")


@cache
def column(model: type[Model], name: str) -> str | Shown:
    """The name itself, or a column that shows the amount under that name in its unit."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return name
    write = _writer(field)
    if write is None:
        return name

    def shown(row: Model) -> str | None:
        value = getattr(row, name)
        return None if value is None else write(value)

    shown.short_description = field.verbose_name  # type: ignore[attr-defined]
    shown.admin_order_field = name  # type: ignore[attr-defined]
    return shown


def _writer(field: Any) -> Callable[[int], str] | None:
    if not isinstance(field, IntegerField) or field.primary_key or field.choices:
        return None
    words = field.name.split("_")
    if "fen" in words:
        return yuan
    if words[-1] == "mt":
        return exact_tokens
    return None if words[-1] in NEVER_COUNTS else grouped


def label_fields() -> None:
    """Name every column of our tables in the reader's language; called once at start.

    The models stay plain and migrations do not change: only what is shown is set here.
    """
    for app in APPS:
        for model in apps.get_app_config(app).get_models():
            for field in model._meta.concrete_fields:
                if isinstance(field, Field) and field._verbose_name is None:  # type: ignore[attr-defined]
                    field.verbose_name = LABELS.get(field.name, field.verbose_name)
