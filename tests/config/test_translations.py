"""The Chinese catalogue says what the sources say."""

import re

from babel.messages.catalog import Catalog

from config import translations

PLACEHOLDER = re.compile(r"%\(\w+\)[sd]")


def test_no_message_is_left_in_english() -> None:
    missing = translations.untranslated(translations.read())
    assert missing == [], "fill them in config/locale/zh_Hans/LC_MESSAGES/django.po"


def test_the_catalogue_holds_exactly_the_messages_of_the_sources() -> None:
    def identities(catalog: Catalog) -> set[tuple[str, str]]:
        return {(str(message.id), message.context or "") for message in catalog if message.id}

    committed, wanted = identities(translations.read()), identities(translations.messages())
    assert committed == wanted, "run: python -m config.translations"


def test_the_compiled_catalogue_is_the_written_one() -> None:
    compiled = (translations.FOLDER / "django.mo").read_bytes()
    assert compiled == translations.compiled(translations.read()), (
        "run: python -m config.translations"
    )


def test_a_translation_keeps_the_placeholders_of_its_message() -> None:
    wrong = []
    for message in translations.read():
        texts = message.id if isinstance(message.id, list | tuple) else (message.id,)
        told = message.string if isinstance(message.string, list | tuple) else (message.string,)
        wanted = set(PLACEHOLDER.findall(texts[-1])) if message.id else set()
        if message.id and any(set(PLACEHOLDER.findall(str(t))) != wanted for t in told):
            wrong.append(texts[0])
    assert wrong == []
