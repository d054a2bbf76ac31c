"""Columns for people: money in yuan, millitokens as standard tokens, ids as links.

The unit ends a column's name (`_fen`, `_mt`), so the staff site needs no word about it per page.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, IntegerField, Model
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from config.formatting import exact_tokens, grouped, yuan
from config.labels import LABELS

Shown = Callable[[Model], str | None]
# Where the plain ids of the hot tables lead, and the annotation that names them where there is one.
LINKS = {
    "account_id": ("accounts_account", ""),
    "subscriber_id": ("accounts_subscriber", "number"),
    "bucket_id": ("usage_bucket", ""),
    "event_id": ("usage_usageevent", ""),
    "batch_id": ("usage_usagebatch", ""),
    "replay_batch_id": ("usage_usagebatch", ""),
    "model_id": ("usage_inferencemodel", "model_code"),
    "node_id": ("usage_node", "node_name"),
    "weight_id": ("usage_weight", ""),
    "api_key_id": ("accounts_apikey", ""),
}
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
        return None if value is None else write(row, value)

    shown.short_description = getattr(field, "verbose_name", name)  # type: ignore[attr-defined]
    shown.admin_order_field = name  # type: ignore[attr-defined]
    return shown


def link_to(viewname: str, key: object, text: object) -> SafeString:
    """A link to the page of a row; `viewname` is like "accounts_subscriber"."""
    address = reverse(f"admin:{viewname}_change", args=[key])
    return format_html('<a class="text-primary-600" href="{}">{}</a>', address, text)


def _writer(field: Any) -> Callable[[Model, int], str] | None:
    if not isinstance(field, IntegerField) or field.primary_key or field.choices:
        return None
    if field.name in LINKS:
        view, named_by = LINKS[field.name]
        return lambda row, key: link_to(view, key, getattr(row, named_by or field.name))
    words = field.name.split("_")
    if words[-1] in NEVER_COUNTS:
        return None
    write = yuan if "fen" in words else exact_tokens if words[-1] == "mt" else grouped
    return lambda row, amount: write(amount)


def label_fields() -> None:
    """Name every column of our tables in the reader's language; called once at start.

    The models stay plain and migrations do not change: only what is shown is set here.
    """
    for app in APPS:
        for model in apps.get_app_config(app).get_models():
            for field in model._meta.concrete_fields:
                if isinstance(field, Field) and field._verbose_name is None:  # type: ignore[attr-defined]
                    field.verbose_name = LABELS.get(field.name, field.verbose_name)
