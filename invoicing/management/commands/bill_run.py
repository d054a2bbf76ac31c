"""Issues the invoices of a month that has ended. Safe to stop, kill and run again."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config import clock
from config.errors import DomainError
from invoicing import billrun, money
from usage import periods


class Command(BaseCommand):
    help = "Issue the invoices of a month, one per account; what is issued already stays as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cycle", help="the month, as 2026-10")
        parser.add_argument("--dry-run", action="store_true", help="say what would be issued")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        bill = billrun.preview if options["dry_run"] else billrun.bill_cycle
        try:
            result = bill(cycle=periods.parse_cycle(options["cycle"]), now=clock.now())
        except DomainError as refusal:
            raise CommandError(refusal.detail) from refusal
        found = asdict(result) | {"cycle": f"{result.cycle:%Y-%m}", "dry_run": options["dry_run"]}
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        issued = "would be issued" if options["dry_run"] else f"{result.issued} of them now"
        self.stdout.write(f"{result.cycle:%Y-%m}: {result.invoices} invoices, {issued}")
        for name, fen in [
            ("net", result.net_fen),
            ("VAT", result.vat_fen),
            ("gross", result.gross_fen),
        ]:
            self.stdout.write(f"  {name:<6}{money.format_yuan(fen):>20} yuan")
        if result.carried:
            self.stdout.write(f"  {result.carried} accounts in credit wait for the next month")
