from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from config import clock
from usage.nodes import NodeExists, create_node


class Command(BaseCommand):
    help = "Register an inference node and print its key, once; the key alone goes to stdout."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="also the source of its events")
        parser.add_argument("--cluster", default="", metavar="NAME")
        parser.add_argument(
            "--source",
            action="append",
            default=[],
            metavar="SOURCE",
            help="report for this source instead of NAME; may be given several times",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            node, token = create_node(
                name=options["name"],
                cluster=options["cluster"],
                sources=options["source"],
                now=clock.now(),
            )
        except NodeExists as refusal:
            self.stderr.write(refusal.detail)
            raise SystemExit(1) from None
        self.stderr.write(f"Node {node.name} is registered. Keep the key: it is not shown again.")
        self.stdout.write(token)
