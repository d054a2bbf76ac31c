"""VAT rates: data with a validity, loaded from a reviewed file, never edited in the past."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml
from django.db import transaction
from django.db.models import Q

from .models import TaxRate
from .refusals import MissingTaxRate, TaxesRefused

TAXES_FILE = Path(__file__).parent / "data" / "taxes.yaml"


def rate_bp(*, category: str, day: date) -> int:
    """The VAT rate of a category on a billing-zone day, in basis points; MissingTaxRate if none."""
    in_force = Q(valid_until__isnull=True) | Q(valid_until__gt=day)
    rate = TaxRate.objects.filter(in_force, category=category, valid_from__lte=day).first()
    if rate is None:
        raise MissingTaxRate(
            f"No VAT rate for {category!r} on {day}: add it to the tax file and load it."
        )
    return rate.rate_bp


@transaction.atomic
def load(*, now: datetime, path: Path = TAXES_FILE) -> int:
    """Add the file's rates that are not stored yet; returns how many were new.

    A new rate ends the one before it. A stored rate is never changed, because invoices stand on
    it: TaxesRefused when the file says otherwise. `now` is unused: validity is in the file.
    """
    added = 0
    for category, entries in _read(path).items():
        stored = {rate.valid_from: rate for rate in TaxRate.objects.filter(category=category)}
        for position, (valid_from, basis_points) in enumerate(entries):
            until = entries[position + 1][0] if position + 1 < len(entries) else None
            added += _put(stored, category, basis_points, valid_from, until)
    return added


def _put(
    stored: dict[date, TaxRate],
    category: str,
    basis_points: int,
    valid_from: date,
    valid_until: date | None,
) -> int:
    rate = stored.get(valid_from)
    if rate is None:
        later = [day for day in stored if day > valid_from]
        if later:
            raise TaxesRefused(
                f"{category} from {valid_from} lies before a stored rate: add rates at the end."
            )
        for former in stored.values():
            if former.valid_until is None or former.valid_until > valid_from:
                former.valid_until = valid_from
                former.save(update_fields=["valid_until"])
        stored[valid_from] = TaxRate.objects.create(
            category=category, rate_bp=basis_points, valid_from=valid_from, valid_until=valid_until
        )
        return 1
    if rate.rate_bp != basis_points:
        raise TaxesRefused(
            f"{category} from {valid_from} is stored with {rate.rate_bp} bp and the file says "
            f"{basis_points}: add a new rate with its own valid_from instead."
        )
    return 0


def _read(path: Path) -> dict[str, list[tuple[date, int]]]:
    rates: dict[str, list[tuple[date, int]]] = {}
    entries: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise TaxesRefused(f"{path} must be a list of rates.")
    for number, entry in enumerate(entries, start=1):
        match entry:
            case {
                "category": str(category),
                "rate_bp": int(basis_points),
                "valid_from": date() as day,
            }:
                rates.setdefault(category, []).append((day, basis_points))
            case _:
                raise TaxesRefused(
                    f"Rate {number} of {path} needs category, rate_bp (integer) and valid_from."
                )
    return {category: sorted(found) for category, found in rates.items()}
