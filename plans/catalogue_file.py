"""Reading the catalogue file: typed, exact and complete before anything is written. Pure.

Every refusal names the file, the entry, what is wrong there and what to write instead.
"""

import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta

from .refusals import CatalogueRefused

Code = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.\-]*$", max_length=40)]
Name = Annotated[str, Meta(min_length=1, max_length=100)]
# The largest amount that is still exact and harmless in mt as a 64-bit integer.
MOST_TOKENS = 1_000_000_000_000
Tokens = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
Audience = Literal["personal", "developer", "enterprise"]
Hours = Annotated[
    str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
]
DECIMAL = re.compile(r"\A(0|[1-9][0-9]{0,8})(\.[0-9]+)?\Z")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan and a pack have in common."""

    code: Code
    name: Name
    name_en: Name
    audience: Audience
    price: str
    tokens: Tokens
    tax_category: Annotated[str, Meta(min_length=1, max_length=40)]
    models: list[str] = []
    pool: Literal["none", "family", "enterprise"] = "none"  # its tokens go into the account's pool
    hours: Hours = "00:00-24:00"  # of the day in Asia/Shanghai, over midnight as in "22:00-08:00"


class Rollover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of what a month leaves, this share, at most so many tokens, goes on to the next one."""

    percent: Annotated[int, Meta(ge=1, le=100)]
    cap_tokens: Annotated[int, Meta(ge=1, le=MOST_TOKENS)] = MOST_TOKENS


class PlanEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A monthly plan, or pay-as-you-go when it has neither fee nor tokens."""

    beyond: Literal["stop", "payg", "restrict"]
    payg_price_per_million: str = "0"
    payg_cap_tokens: Tokens = 0
    priority: Annotated[int, Meta(ge=0, le=1000)] = 20
    rollover: Literal["none", "all"] | Rollover = "none"
    final_action: Literal["redirect", "terminate", "restrict"] = "redirect"
    free_model: str = ""
    pool_first: bool = False


class PackEntry(Entry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A one-time pack, valid for some days from its purchase."""

    validity_days: Annotated[int, Meta(ge=1, le=3660)]
    priority: Annotated[int, Meta(ge=0, le=1000)] = 30


class WeightEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Standard tokens per raw token of each kind, from a billing-zone day on."""

    starts: date = msgspec.field(name="from")
    input: str
    cached: str
    output: str
    reasoning: str


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, the other spellings engines report for it, and its weights, oldest first."""

    code: Annotated[str, Meta(min_length=1, max_length=100)]
    name: Name
    aliases: list[Annotated[str, Meta(min_length=1, max_length=200)]] = []
    weights: Annotated[list[WeightEntry], Meta(min_length=1)]


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file, read and checked."""

    plans: list[PlanEntry]
    packs: list[PackEntry]
    models: list[ModelEntry]


AnyEntry = TypeVar("AnyEntry", PlanEntry, PackEntry, ModelEntry)


class OneKeyLoader(yaml.SafeLoader):
    """YAML lets a key be given twice and takes the last one; in a price list that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key.value} is given twice; keep one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Catalogue:
    """The checked content of a catalogue file; raises CatalogueRefused with what to mend."""
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=OneKeyLoader)  # noqa: S506 (it is a SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CatalogueRefused(f"{path.name} cannot be read: {error}") from error
    sections = {"plans", "packs", "models"}
    if not isinstance(data, dict) or set(data) != sections:
        raise CatalogueRefused(
            f"{path.name} must have exactly the sections plans, packs and models; "
            "write an empty list for one that has no entries"
        )
    catalogue = Catalogue(
        plans=_entries(path, "plans", data["plans"], PlanEntry),
        packs=_entries(path, "packs", data["packs"], PackEntry),
        models=_entries(path, "models", data["models"], ModelEntry),
    )
    _check(path, catalogue)
    return catalogue


def fen(text: str) -> int:
    """Yuan as written, exactly in fen: "9.90" is 990. ValueError when it is not a whole fen."""
    return _scaled(text, 2, "a price in yuan with at most two decimals, as in '9.90'")


def milli(text: str) -> int:
    """A weight as written, exactly in thousandths; ValueError when it has a fourth decimal."""
    return _scaled(text, 3, "a weight with at most three decimals, as in '1.500'")


def minutes(hours: str) -> tuple[int, int]:
    """Hours as written, as minutes of the day: "22:00-08:00" is (1320, 480)."""
    start, until = (int(text[:2]) * 60 + int(text[3:]) for text in hours.split("-"))
    return start, until


def share(rollover: str | Rollover) -> tuple[int, int]:
    """A rollover as written, as (percent, cap in tokens)."""
    if isinstance(rollover, Rollover):
        return rollover.percent, rollover.cap_tokens
    return (100, MOST_TOKENS) if rollover == "all" else (0, 0)


def _scaled(text: str, places: int, meant: str) -> int:
    amount = Decimal(text).scaleb(places) if DECIMAL.match(text) else None
    if amount is None or amount != amount.to_integral_value():
        raise ValueError(f"{text!r} is not {meant}")
    return int(amount)


def _entries(path: Path, section: str, rows: Any, kind: type[AnyEntry]) -> list[AnyEntry]:
    if not isinstance(rows, list):
        raise CatalogueRefused(f"{path.name}, {section}: must be a list of entries")
    entries: list[AnyEntry] = []
    for index, row in enumerate(rows):
        code = row.get("code", "no code") if isinstance(row, dict) else "no code"
        try:
            entries.append(msgspec.convert(row, kind))
        except msgspec.ValidationError as error:
            raise CatalogueRefused(
                f"{path.name}, {section}[{index}] ({code}): {error}. "
                "Amounts are whole numbers; prices and weights are decimals in quotes"
            ) from error
    return entries


def _check(path: Path, catalogue: Catalogue) -> None:
    """What the types cannot say: exact decimals, unique codes, terms that fit each other."""
    models = [entry.code for entry in catalogue.models]
    _unique(path, "plan or pack code", [e.code for e in (*catalogue.plans, *catalogue.packs)])
    spelled = [name for e in catalogue.models for name in {e.code, *e.aliases}]
    _unique(path, "model spelling", spelled)
    for sold in (*catalogue.plans, *catalogue.packs):
        with _Naming(path, sold.code):
            fen(sold.price)
            start, until = minutes(sold.hours)
            if start == until:
                raise ValueError("hours that begin where they end; 00:00-24:00 is the whole day")
            if unknown := sorted(set(sold.models) - set(models)):
                raise ValueError(f"models {unknown} are not in this file; add them or remove them")
            _check_pool(sold)
            if isinstance(sold, PlanEntry):
                _check_beyond(sold)
                _check_final(sold, models)
            elif not sold.tokens:
                raise ValueError("a pack without tokens; give tokens")
    for model in catalogue.models:
        with _Naming(path, model.code):
            for weight in model.weights:
                for text in (weight.input, weight.cached, weight.output, weight.reasoning):
                    milli(text)
            days = [weight.starts for weight in model.weights]
            if days != sorted(set(days)):
                raise ValueError("weights must stand in order of `from`, each day once")


def _check_pool(sold: Entry) -> None:
    if sold.pool != "none" and not sold.tokens:
        raise ValueError("pool without tokens to go into it; give tokens or remove it")


def _check_beyond(plan: PlanEntry) -> None:
    price = fen(plan.payg_price_per_million)
    if plan.beyond == "payg" and not (price and plan.payg_cap_tokens):
        raise ValueError("beyond: payg needs payg_price_per_million and payg_cap_tokens above zero")
    if plan.beyond != "payg" and (price or plan.payg_cap_tokens):
        raise ValueError("a pay-as-you-go price without beyond: payg; remove it or set beyond")
    if plan.beyond != "payg" and not plan.tokens:
        raise ValueError("a plan without tokens that stops at once; give tokens or beyond: payg")


def _check_final(plan: PlanEntry, models: list[str]) -> None:
    if (plan.final_action == "restrict") != bool(plan.free_model):
        raise ValueError("final_action: restrict and free_model go together; give both or none")
    if plan.free_model and plan.free_model not in models:
        raise ValueError(f"free_model {plan.free_model} is not in this file; add it")


def _unique(path: Path, what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise CatalogueRefused(f"{path.name}: {what} {value} is there twice; remove one")
        seen.add(value)


class _Naming:
    """Turns a ValueError inside into a refusal that names the file and the entry."""

    def __init__(self, path: Path, code: str) -> None:
        self.where = f"{path.name}, {code}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise CatalogueRefused(f"{self.where}: {error}") from error
