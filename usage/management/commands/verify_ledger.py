import json
import time
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from usage import proof


class Command(BaseCommand):
    help = (
        "Prove over everything stored that balances are the sum of the ledger and that no token "
        "was lost; status 1 and the differences otherwise."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as one object")
        parser.add_argument("--most", type=int, default=20, help="differences shown per rule")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        differences = proof.verify(most=options["most"])
        if options["json"]:
            found = {
                "proven": not differences,
                "rules": list(proof.RULES),
                "differences": [asdict(one) for one in differences],
            }
            self.stdout.write(json.dumps(found, ensure_ascii=False))
        else:
            for one in differences:
                self.stdout.write(
                    f"{one.rule}: {one.where}: expected {one.expected}, found {one.found}"
                )
        self.stderr.write(
            f"{len(proof.RULES)} rules in {time.monotonic() - began:.1f} s: "
            + (f"{len(differences)} differences" if differences else "proven")
        )
        if differences:
            raise SystemExit(1)
