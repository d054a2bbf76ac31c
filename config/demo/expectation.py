"""The independent count: the month worked out from the trace file and the catalogue file alone.

Nothing here asks the database or calls the program's own arithmetic. A subscriber is served until
an answer says the tokens are gone, so the count goes batch by batch, as nodes learn of it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from .cast import Member, Turn

CATALOGUE = Path(__file__).parents[2] / "plans" / "data" / "catalogue.yaml"
SHANGHAI = timedelta(hours=8)  # the zone has had no summer time since 1991
VAT_PERCENT = 6
BOOSTER = "pack-400k"
MOST_BOOSTERS = 12


@dataclass
class Expected:
    """What the month must come to: requests, millitokens, subscribers, invoices and fen."""

    turned_away: int = 0
    accepted: int = 0
    accepted_mt: int = 0
    debited_mt: int = 0
    overage_mt: int = 0
    uncovered_mt: int = 0
    exhausted: set[str] = field(default_factory=set)
    invoices: int = 0
    net_fen: int = 0
    vat_fen: int = 0
    gross_fen: int = 0


class Catalogue:
    """Prices in fen, tokens and weights (thousandths) as the catalogue file has them."""

    def __init__(self, path: Path = CATALOGUE) -> None:
        entries = yaml.safe_load(path.read_text())
        self.offers: dict[str, dict[str, Any]] = {
            offer["code"]: offer for offer in entries["plans"] + entries["packs"]
        }
        self.weights = {
            model["code"]: {
                kind: int(Decimal(model["weights"][-1][kind]) * 1000)
                for kind in ("input", "cached", "output")
            }
            for model in entries["models"]
        }

    def fen(self, code: str, name: str = "price") -> int:
        """A price of an offer in fen."""
        return int(Decimal(self.offers[code][name]) * 100)

    def mt(self, turn: Turn) -> int:
        """Millitokens of a request."""
        weight = self.weights[turn.model]
        return (
            (turn.request.context - turn.cached) * weight["input"]
            + turn.cached * weight["cached"]
            + turn.request.generated * weight["output"]
        )


class Month:
    """The month in the making: `batch` for batch, then `close`."""

    def __init__(self, cycle: date, catalogue: Catalogue | None = None) -> None:
        self.catalogue = catalogue or Catalogue()
        self.expected = Expected()
        self.boosted: list[str] = []
        self._start = datetime(cycle.year, cycle.month, 1, tzinfo=UTC) - SHANGHAI
        following = (cycle + timedelta(days=32)).replace(day=1)
        self._days = (following - cycle).days
        self._left: dict[str, int] = {}
        self._owed: dict[str, list[int]] = defaultdict(list)
        self._overage: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._blocked: set[str] = set()

    def join(self, member: Member) -> None:
        """A member signs up: the share of the month's fee and tokens, or a pack."""
        offer = self.catalogue.offers[member.offer]
        price = self.catalogue.fen(member.offer)
        tokens = offer["tokens"]
        if not member.offer.startswith("pack"):
            days = self._days - (member.joins - self._start) // timedelta(days=1)
            price = (2 * price * days + self._days) // (2 * self._days)
            tokens = tokens * days // self._days
        self._left[member.msisdn] = tokens * 1000
        if price:
            self._owed[member.msisdn].append(price)

    def served(self, turns: Sequence[Turn]) -> list[Turn]:
        """The requests of a batch that nodes serve, with their tokens booked."""
        served = [turn for turn in turns if turn.member.msisdn not in self._blocked]
        self.expected.turned_away += len(turns) - len(served)
        for turn in served:
            self._book(turn)
        return served

    def exhausted_now(self, turns: Sequence[Turn]) -> list[Member]:
        """Those of a batch who have nothing left after it; from now on they are turned away."""
        gone = {
            turn.member.msisdn: turn.member
            for turn in turns
            if not self._left[turn.member.msisdn] and turn.member.offer != "payg-4"
        }
        self._blocked |= gone.keys()
        self.expected.exhausted |= gone.keys()
        return [gone[msisdn] for msisdn in sorted(gone)]

    def buys_booster(self, member: Member) -> bool:
        """Whether an exhausted member buys a pack; if so it is booked and service goes on."""
        if member.thrifty or len(self.boosted) >= MOST_BOOSTERS or member.msisdn in self.boosted:
            return False
        self.boosted.append(member.msisdn)
        self._left[member.msisdn] += self.catalogue.offers[BOOSTER]["tokens"] * 1000
        self._owed[member.msisdn].append(self.catalogue.fen(BOOSTER))
        self._blocked.discard(member.msisdn)
        return True

    def close(self) -> Expected:
        """Add up the invoices: a line for each fee and pack, one for the overage of each model."""
        price = self.catalogue.fen("payg-4", "payg_price_per_million")
        for msisdn, models in self._overage.items():
            for mt in models.values():
                whole = 1000 * 1_000_000
                self._owed[msisdn].append((2 * mt * price + whole) // (2 * whole))
        for lines in self._owed.values():
            self.expected.invoices += 1
            for gross in lines:
                vat = (2 * gross * VAT_PERCENT + 106) // (2 * 106)
                self.expected.gross_fen += gross
                self.expected.vat_fen += vat
                self.expected.net_fen += gross - vat
        return self.expected

    def _book(self, turn: Turn) -> None:
        msisdn, mt = turn.member.msisdn, self.catalogue.mt(turn)
        debit = min(mt, self._left[msisdn])
        self._left[msisdn] -= debit
        self.expected.accepted += 1
        self.expected.accepted_mt += mt
        self.expected.debited_mt += debit
        if turn.member.offer == "payg-4":
            self.expected.overage_mt += mt - debit
            if mt > debit:
                self._overage[msisdn][turn.model] += mt - debit
        else:
            self.expected.uncovered_mt += mt - debit
