"""Makes the staff roles, or brings their permissions back to what the program defines."""

from typing import Any

from django.core.management.base import BaseCommand

from accounts.roles import ensure_roles


class Command(BaseCommand):
    help = (
        "Create the groups catalogue manager, support, finance and auditor with their permissions. "
        "Safe to run again: permissions return to what the program defines, members stay."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        for group in ensure_roles():
            self.stdout.write(group.name)
