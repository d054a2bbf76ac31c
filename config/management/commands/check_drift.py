"""`manage.py check_drift`: files that are made from others must be those they would be made now."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Compares openapi.yaml and the compiled translations with their sources."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--write", action="store_true", help="write them anew")

    def handle(self, *args: Any, **options: Any) -> None:
        stale = []
        for path, wanted in made_files():
            if path.exists() and path.read_bytes() == wanted:
                continue
            stale.append(str(path.relative_to(settings.BASE_DIR)))
            if options["write"]:
                path.write_bytes(wanted)
        if stale and not options["write"]:
            raise CommandError(f"out of date: {', '.join(stale)}; run `make format` and commit")
        for name in stale:
            self.stdout.write(name)


def made_files() -> Iterator[tuple[Path, bytes]]:
    """Each made file with the content it should have."""
    from config import translations  # needs babel, which only development has

    yield settings.BASE_DIR / "openapi.yaml", api_schema()
    yield translations.FOLDER / "django.mo", translations.compiled(translations.read())


def api_schema() -> bytes:
    """The OpenAPI document of the code as it is; warnings of the generator are errors."""
    made = io.StringIO()
    call_command("spectacular", stdout=made, lang="en", fail_on_warn=True, validate=True)
    return made.getvalue().encode()
