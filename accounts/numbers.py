"""Phone numbers as E.164 text. Django-free apart from the error class."""

import re

import phonenumbers

from config.errors import DomainError

_CHINESE_MOBILE = re.compile(r"(?:\+86)?(1[3-9][0-9]{9})")
_CHINESE_MOBILE_OF_ANY_LENGTH = re.compile(r"\+861[3-9][0-9]*")
_E164 = re.compile(r"\+[1-9][0-9]{5,14}")
_HOME_REGION = "CN"


class InvalidNumber(DomainError):
    """The text is not a telephone number."""

    code = "invalid_number"
    status = 400
    title = "Not a telephone number"


def normalise_msisdn(text: str) -> str:
    """Return the number as `+` and digits; a bare 11-digit Chinese mobile number gets `+86`.

    Raises InvalidNumber. Numbers that already are E.164 pass as they are, whatever their country:
    carriers number machines in ranges that no public metadata knows.
    """
    mobile = _CHINESE_MOBILE.fullmatch(text)
    if mobile is not None:  # nearly every call ends here, without the library's slower parse
        return f"+86{mobile[1]}"
    number = text if _E164.fullmatch(text) else _parsed(text)
    if _CHINESE_MOBILE_OF_ANY_LENGTH.fullmatch(number) and not _CHINESE_MOBILE.fullmatch(number):
        raise InvalidNumber(f"A Chinese mobile number has 11 digits after +86: {text[:40]!r}")
    return number


def _parsed(text: str) -> str:
    """What a person typed (spaces, hyphens, brackets, 00 for +) as E.164."""
    refusal = InvalidNumber(
        f"Give the number in international form, like +8613900000001, not {text[:40]!r}"
    )
    # The library would turn letters into digits, as on a telephone's keys.
    if len(text) > 40 or any(character.isalpha() for character in text):
        raise refusal
    try:
        parsed = phonenumbers.parse(text, _HOME_REGION)
    except phonenumbers.NumberParseException:
        raise refusal from None
    if parsed.extension or not phonenumbers.is_possible_number(parsed):
        raise refusal
    number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    if not _E164.fullmatch(number):
        raise refusal
    return number
