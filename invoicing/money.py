"""Money: integer fen, each division rounded once and half up. Pure: no Django, no clock.

Half up means away from zero for a negative amount, so that a credit mirrors its charge to the fen.
"""

MT_PER_MILLION_TOKENS = 1_000_000_000  # a million standard tokens of 1000 mt each
WHOLE_BP = 10_000

DIGITS = "零壹贰叁肆伍陆柒捌玖"
UNITS = [(10**8, "亿"), (10**4, "万"), (1000, "仟"), (100, "佰"), (10, "拾")]


def divide_half_up(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded half up (away from zero); the denominator is positive."""
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -magnitude if numerator < 0 else magnitude


def vat_inside(gross_fen: int, rate_bp: int) -> tuple[int, int]:
    """Split a tax-inclusive amount into (net_fen, vat_fen); they always add up to the gross."""
    net_fen = divide_half_up(gross_fen * WHOLE_BP, WHOLE_BP + rate_bp)
    return net_fen, gross_fen - net_fen


def overage_fen(mt: int, fen_per_million: int) -> int:
    """Price of `mt` millitokens at fen per million standard tokens, tax included."""
    return divide_half_up(mt * fen_per_million, MT_PER_MILLION_TOKENS)


def format_yuan(fen: int) -> str:
    """`123450` as `1,234.50`, without a currency sign."""
    sign = "-" if fen < 0 else ""
    return f"{sign}{abs(fen) // 100:,}.{abs(fen) % 100:02d}"


def in_chinese_capitals(fen: int) -> str:
    """An amount in the capitals of Chinese invoices: `990` is 玖元玖角整."""
    if fen < 0:
        return "负" + in_chinese_capitals(-fen)
    yuan, rest = divmod(fen, 100)
    jiao, cents = divmod(rest, 10)
    text = f"{_capitals(yuan)}元" if yuan or not rest else ""
    if jiao:
        text += f"{DIGITS[jiao]}角"
    elif cents and yuan:
        text += "零"
    return text + (f"{DIGITS[cents]}分" if cents else "整")


def _capitals(number: int) -> str:
    for size, unit in UNITS:
        if number >= size:
            high, low = divmod(number, size)
            gap = "零" if 0 < low < size // 10 else ""
            return _capitals(high) + unit + gap + (_capitals(low) if low else "")
    return DIGITS[number]
