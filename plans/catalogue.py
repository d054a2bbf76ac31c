"""The catalogue: what is sold, loaded from a reviewed file as immutable versions."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import QuerySet

from usage import weights
from usage.models import InferenceModel
from usage.periods import day_start
from usage.waterfall import WHOLE_DAY

from .catalogue_file import Catalogue, PackEntry, PlanEntry, fen, milli, minutes, read, share
from .models import Plan, PlanVersion
from .refusals import CatalogueRefused, UnknownPlan
from .turns import take_turn

SHIPPED = Path(__file__).parent / "data" / "catalogue.yaml"

# What other apps load with the catalogue (tax rates, say): each gets `now` and answers with one
# line for people. They append here when they are ready, since nothing here may import them.
Loader = Callable[[datetime], str]
LOADERS: list[Loader] = []


@dataclass(frozen=True, slots=True)
class LoadResult:
    """How many entries changed: new versions, those as before, taken off sale, new weights."""

    new_versions: int = 0
    unchanged: int = 0
    off_sale: int = 0
    models: int = 0
    new_weights: int = 0


def load(*, path: Path = SHIPPED, now: datetime) -> LoadResult:
    """Load a file whole or not at all; the same content again changes nothing.

    A changed entry becomes the next version, a missing one a version that is off sale, and what was
    sold keeps its terms. Raises CatalogueRefused. Concurrent loads run one after the other.
    """
    content = read(path)
    with transaction.atomic():
        take_turn("plans.catalogue")
        result = _load_models(content, now)
        entries: list[PlanEntry | PackEntry] = [*content.plans, *content.packs]
        sold = {entry.code for entry in entries}
        for entry in entries:
            added = _load_entry(entry, now)
            result = replace(
                result,
                new_versions=result.new_versions + added,
                unchanged=result.unchanged + (not added),
            )
        return replace(result, off_sale=_take_off_sale(sold, now))


def newest() -> QuerySet[PlanVersion]:
    """The newest version of every plan, on sale or not."""
    # On a plan the highest version is the newest; DISTINCT ON keeps the first row of each plan.
    order = ["plan_id", "-version"]
    return PlanVersion.objects.select_related("plan").order_by(*order).distinct("plan_id")


def on_sale() -> list[PlanVersion]:
    """What can be bought now: plans before packs, cheapest first."""
    versions = [version for version in newest() if version.on_sale]
    return sorted(
        versions, key=lambda v: (v.plan.kind == "pack", v.price_fen, v.tokens, v.plan.code)
    )


def version_on_sale(code: str) -> PlanVersion:
    """The version that is sold under a code now; UnknownPlan when there is none."""
    version = newest().filter(plan__code=code).first()
    if version is None or not version.on_sale:
        raise UnknownPlan(f"{code} is not on sale; the catalogue lists what is")
    return version


def model_ids_of(version: PlanVersion) -> list[int]:
    """The models a bucket of this version is restricted to; empty when it admits every model."""
    if not version.model_codes:
        return []
    models = InferenceModel.objects.filter(code__in=version.model_codes).order_by("id")
    ids = list(models.values_list("id", flat=True))
    assert len(ids) == len(version.model_codes), "a restriction must never widen to every model"
    return ids


def _load_models(content: Catalogue, now: datetime) -> LoadResult:
    new_weights = 0
    for entry in content.models:
        weights.put_model(code=entry.code, name=entry.name, aliases=entry.aliases, now=now)
        for weight in entry.weights:
            _, created = weights.put_weight(
                model_code=entry.code,
                input_milli=milli(weight.input),
                cached_milli=milli(weight.cached),
                output_milli=milli(weight.output),
                reasoning_milli=milli(weight.reasoning),
                valid_from=day_start(weight.starts),
                now=now,
            )
            new_weights += created
    return LoadResult(models=len(content.models), new_weights=new_weights)


def _load_entry(entry: PlanEntry | PackEntry, now: datetime) -> bool:
    """True when the entry became a new version."""
    kind = _kind(entry)
    plan, _ = Plan.objects.get_or_create(code=entry.code, defaults={"kind": kind})
    if plan.kind != kind:
        raise CatalogueRefused(
            f"{entry.code} was loaded as {plan.kind} before and is {kind} now; use another code"
        )
    terms = _terms(entry)
    checksum = hashlib.sha256(msgspec.json.encode(terms, order="sorted")).hexdigest()
    last = plan.versions.order_by("-version").first()
    if last is not None and last.checksum == checksum and last.on_sale:
        return False
    PlanVersion.objects.create(
        plan=plan,
        version=last.version + 1 if last else 1,
        checksum=checksum,
        loaded_at=now,
        **terms,
    )
    return True


def _kind(entry: PlanEntry | PackEntry) -> str:
    if isinstance(entry, PackEntry):
        return Plan.Kind.PACK
    return Plan.Kind.MONTHLY if fen(entry.price) or entry.tokens else Plan.Kind.PAYG


def _terms(entry: PlanEntry | PackEntry) -> dict[str, Any]:
    """The columns of a version that an entry fills."""
    terms: dict[str, Any] = {
        "name": entry.name,
        "name_en": entry.name_en,
        "audience": entry.audience,
        "price_fen": fen(entry.price),
        "tokens": entry.tokens,
        "priority": entry.priority,
        "model_codes": sorted(set(entry.models)),
        "tax_category": entry.tax_category,
    }
    if minutes(entry.hours) != (0, WHOLE_DAY):
        terms["minute_from"], terms["minute_until"] = minutes(entry.hours)
    if entry.pool != "none":
        terms["pool_kind"] = entry.pool
    if isinstance(entry, PackEntry):
        # What happens beyond the buckets is the plan's affair, whatever packs are bought.
        return terms | {"validity_days": entry.validity_days, "beyond": "stop"}
    return terms | _plan_terms(entry)


def _plan_terms(entry: PlanEntry) -> dict[str, Any]:
    terms: dict[str, Any] = {
        "beyond": entry.beyond,
        "payg_fen_per_million": fen(entry.payg_price_per_million),
        "payg_cap_tokens": entry.payg_cap_tokens,
    }
    # Younger terms stand here only when used, so that the checksum of a plan without them stays.
    if entry.rollover != "none":
        terms["rollover_percent"], terms["rollover_cap_tokens"] = share(entry.rollover)
    if entry.final_action != "redirect":
        terms |= {"final_action": entry.final_action.upper(), "free_model": entry.free_model}
    if entry.pool_first:
        terms["pool_first"] = True
    return terms


def _take_off_sale(sold: set[str], now: datetime) -> int:
    gone = 0
    for last in list(newest().exclude(plan__code__in=sold)):
        if last.on_sale:
            # The same terms again as a further row: only what is offered changes.
            last.pk, last.version, last.on_sale, last.loaded_at = None, last.version + 1, False, now
            last.save(force_insert=True)
            gone += 1
    return gone
