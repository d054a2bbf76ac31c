"""The language a subscriber reads: kept with the number, so that messages arrive in it."""

from django.conf import settings

from accounts.models import Subscriber
from config.errors import DomainError


class UnknownLanguage(DomainError):
    """A language that is not spoken here."""

    code = "unknown_language"
    status = 400


def choose(*, subscriber_id: int, language: str) -> None:
    """Write the language; a repeat changes nothing. Raises UnknownLanguage."""
    codes = [code for code, _ in settings.LANGUAGES]
    if language not in codes:
        raise UnknownLanguage(f"Choose one of {', '.join(codes)}.")
    Subscriber.objects.filter(id=subscriber_id).exclude(language=language).update(language=language)
