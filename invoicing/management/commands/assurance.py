"""The proof that of a period no event, no token and no fen is lost. Status 1 when one is."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.errors import DomainError
from invoicing import assurance
from usage import periods


class Command(BaseCommand):
    help = "Prove a period of billing-zone days [from, to): events, tokens and money add up."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", required=True, dest="start", help="first day, 2026-10-01")
        parser.add_argument("--to", required=True, dest="end", help="day after the last")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = assurance.assure(
                start=periods.parse_day(options["start"]), end=periods.parse_day(options["end"])
            )
        except DomainError as refusal:
            raise CommandError(refusal.detail) from refusal
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            self._print(report)
        if report["differences"]:
            sys.exit(1)

    def _print(self, report: dict[str, Any]) -> None:
        for key, value in report.items():
            if key != "differences":
                self.stdout.write(f"{key:<18}{value:>24,}")
        for difference in report["differences"]:
            self.stdout.write(
                self.style.ERROR(
                    f"{difference['rule']}: {difference['where']}: "
                    f"expected {difference['expected']}, found {difference['found']}"
                )
            )
        if not report["differences"]:
            self.stdout.write(self.style.SUCCESS("proven: no difference"))
