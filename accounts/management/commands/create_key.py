"""Makes an API key for a subscriber or for staff."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import keys, reports
from accounts.models import ApiKey, User
from config import clock
from config.errors import DomainError

ONCE = "This is the only time the key is shown; it is stored as a hash."


class Command(BaseCommand):
    """Prints the new key alone on stdout, so that scripts can capture it; words go to stderr."""

    help = "Make an API key for a subscriber (by number) or for staff and carrier systems."

    def add_arguments(self, parser: ArgumentParser) -> None:
        kinds = parser.add_subparsers(dest="kind", required=True)
        subscriber = kinds.add_parser("subscriber", help="a key for the subscriber's own apps")
        subscriber.add_argument("msisdn", metavar="MSISDN", help="like +8613900000001")
        staff = kinds.add_parser("staff", help="a key for staff and carrier systems")
        staff.add_argument("--user", metavar="NAME", help="the staff user it acts for")
        for kind, needed in ((subscriber, False), (staff, True)):
            possible = keys.SCOPES["staff" if needed else "subscriber"]
            kind.add_argument(
                "--scopes", nargs="+", metavar="SCOPE", required=needed, default=[],
                choices=possible, help=" ".join(possible),
            )  # fmt: skip
            kind.add_argument("--name", default="", help="what the key is for")
            kind.add_argument("--days", type=int, help="days until it expires (default: never)")

    def handle(self, *args: Any, **options: Any) -> None:
        now = clock.now()
        days = options["days"]
        try:
            key, token = keys.issue_key(
                kind=options["kind"],
                now=now,
                subscriber_id=self._subscriber_id(options),
                user_id=self._user_id(options),
                name=options["name"],
                scopes=options["scopes"],
                expires_at=None if days is None else now + timedelta(days=days),
            )
        except DomainError as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stderr.write(f"{key.kind} key {key.public_id}: {' '.join(key.scopes)}. {ONCE}")
        self.stdout.write(token)

    def _subscriber_id(self, options: dict[str, Any]) -> int | None:
        if options["kind"] != ApiKey.Kind.SUBSCRIBER:
            return None
        return reports.living_subscriber(msisdn=options["msisdn"]).id

    def _user_id(self, options: dict[str, Any]) -> int | None:
        name = options.get("user")
        if name is None:
            return None
        user = User.objects.filter(username=name, is_staff=True, is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active staff user {name!r}; see createsuperuser.")
        return user.id
