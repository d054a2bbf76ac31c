"""Bars and shares of a chart as integers of an SVG's own units. Pure: no Django, no floats."""

from collections.abc import Sequence
from dataclasses import dataclass

SLOT = 100  # width of one bar with its gap
HEIGHT = 1000
BAR = 66
STEPS = (1, 2, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Bar:
    """One bar; `mark` is the text under it (empty for most), `name` says it in full."""

    x: int
    y: int
    slot: int
    height: int
    mt: int
    name: str
    mark: str
    now: bool
    link: str


@dataclass(frozen=True)
class Chart:
    """Bars under a scale that ends at `top_mt`, a round number."""

    bars: list[Bar]
    width: int
    top_mt: int
    total_mt: int

    @property
    def half_mt(self) -> int:
        """The middle of the scale."""
        return self.top_mt // 2


@dataclass(frozen=True)
class Place:
    """Where a bar stands: how it is called, marked and linked."""

    name: str
    mark: str = ""
    now: bool = False
    link: str = ""


def round_top(mt: int) -> int:
    """The scale's end: one or two leading figures that reach above the highest bar."""
    size = 1000
    while size * 10 < mt:
        size *= 10
    return next(step * size for step in STEPS if step * size >= mt)


def chart(*, values: Sequence[int], places: Sequence[Place]) -> Chart:
    """Lay out one bar per place; whatever was used at all stays visible."""
    top = round_top(max(values, default=0))
    bars = []
    for index, (mt, place) in enumerate(zip(values, places, strict=True)):
        height = max(12, mt * HEIGHT // top) if mt > 0 else 0
        bars.append(
            Bar(
                x=index * SLOT + (SLOT - BAR) // 2,
                y=HEIGHT - height,
                slot=index * SLOT,
                height=height,
                mt=mt,
                name=place.name,
                mark=place.mark,
                now=place.now,
                link=place.link,
            )
        )
    return Chart(bars=bars, width=SLOT * len(bars), top_mt=top, total_mt=sum(values))


@dataclass(frozen=True)
class Share:
    """A part of a whole in thousandths, and where it begins."""

    name: str
    count: int
    start: int
    width: int
    style: str


def shares(*, counts: Sequence[tuple[str, int]]) -> list[Share]:
    """Parts of one bar of 1000 units; the last one takes what the cutting left over."""
    whole = sum(count for _, count in counts)
    found: list[Share] = []
    seen = 0
    for index, (name, count) in enumerate(counts, 1):
        start = seen * 1000 // whole if whole else 0
        seen += count
        width = seen * 1000 // whole - start if whole else 0
        found.append(Share(name=name, count=count, start=start, width=width, style=f"k{index}"))
    return found
