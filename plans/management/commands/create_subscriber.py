"""Signs a number up for a plan and prints the subscriber's id."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config import clock
from config.errors import DomainError
from plans.subscribing import sign_up
from usage.periods import day_start, parse_day


class Command(BaseCommand):
    help = "Account, subscriber and subscription in one step; prints the subscriber id. Repeatable."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("msisdn", help="the phone number, as in +8613900000001")
        parser.add_argument("--plan", required=True, help="a plan code, as in token-9.9")
        parser.add_argument("--starts", help="first day, as in 2026-10-01 (default: now)")
        parser.add_argument("--name", default="", help="who pays (default: the number)")
        parser.add_argument("--account", type=int, help="an account that exists already")

    def handle(self, *args: Any, **options: Any) -> None:
        now = clock.now()
        try:
            starts = options["starts"]
            subscriber = sign_up(
                msisdn=options["msisdn"],
                plan_code=options["plan"],
                starts_at=day_start(parse_day(starts)) if starts else now,
                actor="command line",
                now=now,
                account_id=options["account"],
                name=options["name"],
            )
        except DomainError as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(str(subscriber.pk))
