"""A chart's bars fit its scale, and nothing that was used disappears."""

from hypothesis import given
from hypothesis import strategies as st

from usage import charts


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=31))
def test_bars_stay_on_the_scale_and_every_use_is_seen(values: list[int]) -> None:
    chart = charts.chart(values=values, places=[charts.Place(name="")] * len(values))
    assert chart.total_mt == sum(values)
    assert max(values) <= chart.top_mt
    for bar, mt in zip(chart.bars, values, strict=True):
        assert 0 <= bar.height <= charts.HEIGHT
        assert bar.y + bar.height == charts.HEIGHT
        assert (bar.height > 0) == (mt > 0)


def test_the_scale_ends_at_a_round_number_just_above_the_highest_bar() -> None:
    assert [charts.round_top(mt) for mt in (0, 1000, 9_500, 2_400_000, 71_000_000)] == [
        1000,
        1000,
        10_000,
        3_000_000,
        80_000_000,
    ]


@given(st.lists(st.integers(0, 10**12), min_size=4, max_size=4))
def test_shares_fill_the_bar_without_a_gap(counts: list[int]) -> None:
    shares = charts.shares(counts=[(str(index), count) for index, count in enumerate(counts)])
    ends = [share.start + share.width for share in shares]
    assert ends[-1] == (1000 if sum(counts) else 0)
    assert [share.start for share in shares[1:]] == ends[:-1]
