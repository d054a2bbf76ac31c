"""The proof that of a period no event, no token and no fen is lost. Status 1 when one is."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.errors import DomainError
from invoicing import assurance, node_assurance
from usage import periods

AMOUNTS = (
    "accepted_mt",
    "correction_accepted_mt",
    "corrected_accepted_mt",
    "corrected_debited_mt",
    "corrected_invoiced_mt",
)
COLUMNS = ("counted_tokens", "accepted_tokens", "rejected_tokens", "difference_tokens")


class Command(BaseCommand):
    help = "Prove a period of billing-zone days [from, to): events, tokens and money add up."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", required=True, dest="start", help="first day, 2026-10-01")
        parser.add_argument("--to", required=True, dest="end", help="day after the last")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--by-node",
            action="store_true",
            help="by node and hour, beside what the nodes counted themselves (31 days at most)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            prove = node_assurance.assure_nodes if options["by_node"] else assurance.assure
            report = prove(
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
        if "nodes" in report:
            self._print_nodes(report)
        else:
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

    def _print_nodes(self, report: dict[str, Any]) -> None:
        """A line for each node and, under it, for each hour with a difference or a correction."""
        columns = [*COLUMNS, "received", *AMOUNTS]
        self.stdout.write(f"{'':<34}" + "".join(f"{name:>23}" for name in columns))
        for node in report["nodes"]:
            hours = [
                row
                for row in report["hours"]
                if row["node"] == node["node"] and (row["difference_tokens"] or row["corrections"])
            ]
            for row in (node, *hours):
                title = row["hour"] if "hour" in row else row["node"]
                numbers = ("-" if row[name] is None else f"{row[name]:,}" for name in columns)
                self.stdout.write(f"{title[:34]:<34}" + "".join(f"{text:>23}" for text in numbers))
