from typing import Any

from django.core.management.base import BaseCommand

from config import clock
from usage import partitions


class Command(BaseCommand):
    help = "Make the partitions that events and ledger need soon (beat does so every hour)."

    def handle(self, *args: Any, **options: Any) -> None:
        made = partitions.make_ahead(now=clock.now())
        self.stderr.write(f"{len(made)} partitions made.")
