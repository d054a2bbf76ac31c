"""The reconciliation: what the trace and the catalogue say must be, beside what Tokenpack has."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from invoicing.assurance import assure
from usage import proof
from usage.models import BlockChange
from usage.periods import cycle_end, cycle_start, next_cycle

from .expectation import Expected
from .replay import Progress


@dataclass(frozen=True)
class Line:
    """One line of the table; amounts are printed in their unit."""

    name: str
    expected: int
    found: int
    unit: str = ""

    @property
    def balances(self) -> bool:
        """Whether both counts agree."""
        return self.expected == self.found


def reconcile(*, cycle: date, trace: int, expected: Expected, progress: Progress) -> list[Line]:
    """Every line of the table. Expected counts come from the trace file, the catalogue file and
    what the nodes sent; found ones from the stored rows."""
    report: dict[str, Any] = assure(start=cycle, end=next_cycle(cycle))
    exhausted = (
        BlockChange.objects.filter(
            reason="quota_exhausted", at__gte=cycle_start(cycle), at__lt=cycle_end(cycle)
        )
        .values("subscriber_id")
        .distinct()
        .count()
    )
    return [
        Line("events received", progress.received, report["received"]),
        Line("  duplicate", progress.duplicate, report["duplicate"]),
        Line("  conflict", progress.conflict, report["conflict"]),
        Line("  rejected", progress.rejected, report["rejected"]),
        Line("  accepted", expected.accepted, report["accepted"]),
        Line("turned away at the nodes", expected.turned_away, trace - report["accepted"]),
        Line("tokens accepted", expected.accepted_mt, report["accepted_mt"], "tokens"),
        Line("  debited from buckets", expected.debited_mt, report["debited_mt"], "tokens"),
        Line("  overage, priced", expected.overage_mt, report["overage_mt"], "tokens"),
        Line("  uncovered", expected.uncovered_mt, report["uncovered_mt"], "tokens"),
        Line("subscribers exhausted", len(expected.exhausted), exhausted),
        Line("  told to the nodes", len(expected.exhausted), len(progress.exhausted)),
        Line("invoices", expected.invoices, report["invoices"]),
        Line("  net", expected.net_fen, report["net_fen"], "yuan"),
        Line("  VAT 6 %", expected.vat_fen, report["vat_fen"], "yuan"),
        Line("  gross", expected.gross_fen, report["gross_fen"], "yuan"),
        Line("not yet invoiced", 0, report["not_invoiced_fen"], "yuan"),
        Line("differences in the proof", 0, len(report["differences"])),
        Line("differences in the ledger", 0, len(proof.verify())),
    ]


def printed(lines: list[Line]) -> str:
    """The table as text."""
    texts = [
        (line.name, _amount(line.expected, line.unit), _amount(line.found, line.unit))
        for line in lines
    ]
    names, expected, found = (max(len(row[column]) for row in texts) for column in range(3))
    expected, found = max(expected, len("counted apart")), max(found, len("Tokenpack"))
    head = f"{'':<{names}}  {'counted apart':>{expected}}  {'Tokenpack':>{found}}"
    body = [
        f"{name:<{names}}  {one:>{expected}}  {other:>{found}}  "
        + ("balances" if line.balances else "DIFFERS")
        for line, (name, one, other) in zip(lines, texts, strict=True)
    ]
    return "\n".join([head, "-" * (len(head) + 10), *body])


def _amount(value: int, unit: str) -> str:
    if unit == "tokens":
        return f"{value // 1000:,}.{value % 1000:03d}"
    if unit == "yuan":
        return f"{value // 100:,}.{value % 100:02d}"
    return f"{value:,}"
