"""Amounts as people read them: tokens in 万/亿 or K/M/B, money in yuan. Integers throughout."""

MT_PER_TOKEN = 1000
MINUTES_OF_A_DAY = 1440
CHINESE_STEPS = ((10**8, "亿"), (10**4, "万"))
ENGLISH_STEPS = ((10**9, "B"), (10**6, "M"), (10**3, "K"))


def grouped(number: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{number:,}"


def exact_tokens(mt: int) -> str:
    """Millitokens as standard tokens, to the last thousandth: 1234500 -> "1,234.5"."""
    whole, rest = divmod(abs(mt), MT_PER_TOKEN)
    sign = "-" if mt < 0 else ""
    return f"{sign}{whole:,}.{rest:03}".rstrip("0").rstrip(".")


def hours(minute_from: int, minute_until: int) -> str:
    """Hours of the day, (1320, 480) -> "22:00–08:00"; nothing for the whole day."""
    if minute_until - minute_from == MINUTES_OF_A_DAY:
        return ""
    start, until = (f"{minute // 60:02}:{minute % 60:02}" for minute in (minute_from, minute_until))
    return f"{start}–{until}"


def short_amount(tokens: int, language: str) -> tuple[str, str]:
    """A count of tokens as (number, unit), cut off and never rounded up: no screen promises more.

    Under ten thousand every digit is shown; above, two decimals, or one from a hundred units on.
    """
    chinese = language.startswith("zh")
    sign, size = ("-", -tokens) if tokens < 0 else ("", tokens)
    if size < 10_000:
        return f"{sign}{size:,}", ""
    for step, unit in CHINESE_STEPS if chinese else ENGLISH_STEPS:
        if size >= step:
            whole, rest = divmod(size, step)
            decimals = f"{rest * 100 // step:02}" if whole < 100 else f"{rest * 10 // step}"
            decimals = decimals.rstrip("0")
            return f"{sign}{whole:,}" + (f".{decimals}" if decimals else ""), unit
    raise AssertionError("the last step is below ten thousand")


def short_tokens(mt: int, language: str) -> str:
    """Millitokens as a short count of standard tokens: "1,000 万" in Chinese, "10 M" in English."""
    sign = -1 if mt < 0 else 1
    number, unit = short_amount(sign * (abs(mt) // MT_PER_TOKEN), language)
    return f"{number} {unit}" if unit else number


def yuan(fen: int) -> str:
    """990 -> "¥9.90"; a credit carries its sign in front: "-¥9.90"."""
    whole, cents = divmod(abs(fen), 100)
    return f"{'-' if fen < 0 else ''}¥{whole:,}.{cents:02}"


def percent(part: int, whole: int) -> int:
    """How much of the whole the part is, 0 to 100, cut off; 1 while anything at all is left."""
    if whole <= 0 or part <= 0:
        return 0
    return min(100, max(1, part * 100 // whole))


def phone(msisdn: str) -> str:
    """+8613900000001 -> "139 0000 0001"; other numbers in groups after the country's sign."""
    if msisdn.startswith("+86") and len(msisdn) == 14:
        digits = msisdn[3:]
        return f"{digits[:3]} {digits[3:7]} {digits[7:]}"
    return msisdn
