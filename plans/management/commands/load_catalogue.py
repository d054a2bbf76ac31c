"""Loads the catalogue file: plans, packs, models, weights, and what other apps add to it."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config import clock
from config.errors import DomainError
from plans import catalogue


class Command(BaseCommand):
    help = "Loads plans, packs, models and weights as versions. Loading the same again is safe."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", nargs="?", type=Path, default=catalogue.SHIPPED, help="default: the shipped one"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = clock.now()
        try:
            result = catalogue.load(path=options["file"], now=now)
            lines = [loader(now) for loader in catalogue.LOADERS]
        except DomainError as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(
            f"plans and packs: {result.new_versions} new versions, {result.unchanged} unchanged, "
            f"{result.off_sale} taken off sale; "
            f"models: {result.models}, {result.new_weights} new weights"
        )
        for line in lines:
            self.stdout.write(line)
