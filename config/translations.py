"""Keeps the Chinese catalogue in step with the sources: `python -m config.translations`.

Reads every translatable message of our Python and templates, merges it into django.po (new ones
stay empty for a person to fill in) and compiles django.mo. Babel does it, so that nobody needs the
GNU gettext programs. Only development has babel; nothing imports this at run time.
"""

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "config" / "locale" / "zh_Hans" / "LC_MESSAGES"
APPS = ("accounts", "usage", "plans", "invoicing", "config")
FIXED = datetime(2026, 11, 1, tzinfo=UTC)  # a date that moved would make every run a change
KEYWORDS: dict[str, Any] = DEFAULT_KEYWORDS | {
    "gettext_lazy": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
}


def sources() -> list[Path]:
    """Our Python and templates, without tests and migrations."""
    found = []
    for app in APPS:
        found += [path for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts]
        found += (ROOT / app).rglob("templates/**/*.html")
    return sorted(found)


def messages() -> Catalog:
    """Every message of the sources, with the files it stands in."""
    catalog = Catalog(locale="zh_Hans", domain="django", fuzzy=False)
    for path in sources():
        for line, message, comments, context in _messages_of(path):
            place = (str(path.relative_to(ROOT)), line)
            catalog.add(message, locations=[place], auto_comments=comments, context=context)
    return catalog


def read() -> Catalog:
    """The Chinese catalogue as it is committed."""
    with (FOLDER / "django.po").open("rb") as file:
        return read_po(file, locale="zh_Hans", domain="django")


def write(catalog: Catalog) -> None:
    """Write django.po without line numbers and dates, so that a diff shows words only."""
    for message in catalog:
        names = sorted({name for name, _ in message.locations})
        message.locations = cast(list[tuple[str, int]], [(name, None) for name in names])
    catalog.header_comment = (
        "# Chinese (Simplified). Kept in step by: python -m config.translations"
    )
    catalog.project, catalog.fuzzy = "tokenpack", False
    catalog.msgid_bugs_address = catalog.last_translator = ""
    catalog.creation_date = catalog.revision_date = FIXED
    with (FOLDER / "django.po").open("wb") as file:
        write_po(file, catalog, sort_output=True, width=100)


def compiled(catalog: Catalog) -> bytes:
    """The catalogue as django.mo."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def untranslated(catalog: Catalog) -> list[str]:
    """Messages that a Chinese reader would see in English."""
    return [
        message.id if isinstance(message.id, str) else message.id[0]
        for message in catalog
        if message.id and (message.fuzzy or not all(_texts(message.string)))
    ]


def _texts(string: Any) -> tuple[str, ...]:
    return tuple(string) if isinstance(string, list | tuple) else (string or "",)


def _messages_of(path: Path) -> Iterator[tuple[int, Any, list[str], str | None]]:
    text = path.read_text()
    if path.suffix == ".html":
        # Django rewrites a template as gettext calls between filler, whose indentation would not
        # parse as Python.
        text = "\n".join(line.strip() for line in templatize(text).splitlines())
    file, tags = io.BytesIO(text.encode()), ["Translators:"]
    # Babel's annotations tell another shape than it yields: a text alone, or a tuple of arguments.
    found: Any = extract_python(file, KEYWORDS, tags, {})
    for line, function, arguments, comments in found:
        given = arguments if isinstance(arguments, tuple) else (arguments,)
        context = given[0] if function.startswith(("pgettext", "npgettext")) else None
        parts = given[1:] if context is not None else given
        plural = function.startswith(("ngettext", "npgettext"))
        message = parts[:2] if plural else parts[0]
        if message and all(isinstance(part, str) for part in parts[: 2 if plural else 1]):
            yield line, message, comments, context


def main() -> int:
    """Merge, compile, and say what is still to be translated."""
    fresh = messages()
    catalog = read() if (FOLDER / "django.po").exists() else Catalog(locale="zh_Hans")
    catalog.update(fresh, no_fuzzy_matching=True)
    catalog.obsolete.clear()
    FOLDER.mkdir(parents=True, exist_ok=True)
    write(catalog)
    (FOLDER / "django.mo").write_bytes(compiled(catalog))
    missing = untranslated(catalog)
    for message in missing:
        print(message)
    print(f"{len(list(fresh))} messages, {len(missing)} to translate", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
