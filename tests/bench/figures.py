"""What a benchmark is, and its figure: the median of ratios, each of two sides measured in turn."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

Side = Callable[[], float]


@dataclass(frozen=True)
class Benchmark:
    """One figure of the table. `must` and `aim` are ratios; `lower` ones are better when low."""

    key: str
    what: str
    rival: str
    must: float
    aim: float
    measure: "Callable[[Run], Figure]"
    lower: bool = False
    quick: bool = True  # part of QUICK=1

    def reached(self, ratio: float, goal: float) -> bool:
        """Whether a ratio is as good as a goal."""
        return ratio <= goal if self.lower else ratio >= goal


@dataclass(frozen=True)
class Run:
    """How thorough this run is."""

    rounds: int
    seconds: float  # of load, each side, each round
    quick: bool
    say: Callable[[str], None]


@dataclass
class Figure:
    """The ratios of all rounds, with what either side reached, in its own unit."""

    ratios: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)
    unit: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


class Skipped(Exception):
    """What the benchmark needs is not on this machine; the message says how to get it."""


def interleave(
    run: Run, ours: Side, rival: Side, *, unit: str, rival_first: bool = False
) -> Figure:
    """Measure both sides in turn, changing who begins (unless the rival must), and take the ratio
    of each pair."""
    figure = Figure(unit=unit)
    for number in range(run.rounds):
        if rival_first or number % 2:
            theirs, own = rival(), ours()
        else:
            own, theirs = ours(), rival()
        figure.ours.append(own)
        figure.rival.append(theirs)
        figure.ratios.append(own / theirs)
        run.say(
            f"  round {number + 1}: {own:,.1f} against {theirs:,.1f} {unit}: {own / theirs:.3f}"
        )
    return figure
