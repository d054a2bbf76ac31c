"""Usage that is told late or rated again once its month is billed: it stands on the next invoice
and names its own month. Nothing is billed twice, nothing is lost."""

from datetime import date, timedelta

import pytest

from invoicing import billrun, money
from invoicing.models import Invoice
from usage import periods, rerating
from usage.models import Node, Rerating, UsageEvent, Weight
from usage.weights import correct_weight

from .conftest import DECEMBER, NOVEMBER, OCTOBER
from .test_credited_overage import MORNING, NOVEMBER_MORNING, assured, lines, node, use

pytestmark = pytest.mark.django_db

__all__ = ["node"]  # the same debtor, who pays 400 fen for a million tokens

MILLION_MT = 10**9
HOUR = timedelta(hours=1)


def bill(cycle: date) -> None:
    billrun.bill_cycle(cycle=cycle, now=periods.cycle_end(cycle) + 2 * HOUR)


def dry_run(milli: int) -> Rerating:
    """A dry run of October, since the model's input should have weighed `milli` all the time."""
    wrong = Weight.objects.get(model__code="deepseek-v3.2", withdrawn_at=None)
    correct_weight(
        weight_id=wrong.pk, input_milli=milli, cached_milli=wrong.cached_milli,
        output_milli=wrong.output_milli, reasoning_milli=wrong.reasoning_milli, actor="li",
        reason="typo", now=NOVEMBER_MORNING,
    )  # fmt: skip
    return rerating.dry_run(
        model_code="deepseek-v3.2", start=periods.cycle_start(OCTOBER),
        end=periods.cycle_end(OCTOBER), actor="li", reason="typo", now=NOVEMBER_MORNING,
    )  # fmt: skip


def apply(found: Rerating) -> None:
    rerating.begin(rerating_id=found.pk, actor="wang", now=NOVEMBER_MORNING)
    done = rerating.apply(rerating_id=found.pk, clock=lambda: NOVEMBER_MORNING)
    assert done.state == Rerating.State.APPLIED


def test_late_usage_is_billed_on_its_own_month(node: Node) -> None:
    """late-01: 3 are used in the first month, 2 in the second, 3 in the third; then 1 more of the
    first comes to light."""
    use(node, 1, 3_000_000)
    bill(OCTOBER)
    use(node, 2, 2_000_000, NOVEMBER_MORNING)
    bill(NOVEMBER)
    third = periods.cycle_start(DECEMBER) + timedelta(days=3)
    late = periods.cycle_end(OCTOBER) - HOUR
    use(node, 3, 3_000_000, third)
    use(node, 4, 1_000_000, late, now=third)
    bill(DECEMBER)
    assert lines(OCTOBER) == [(3 * MILLION_MT, 1200, OCTOBER)]
    assert lines(NOVEMBER) == [(2 * MILLION_MT, 800, NOVEMBER)]
    assert lines(DECEMBER) == [(MILLION_MT, 400, OCTOBER), (3 * MILLION_MT, 1200, DECEMBER)]
    assured(OCTOBER, NOVEMBER, DECEMBER)


def test_rating_again_replaces_what_was_owed(node: Node) -> None:
    """USG-03: a million tokens for 400 fen; rated again they are 250 fen, and never 650."""
    use(node, 1, 1_000_000)
    apply(dry_run(625))
    bill(OCTOBER)
    assert lines(OCTOBER) == [(625_000_000, 250, OCTOBER)]
    assert Invoice.objects.get().gross_fen == 250
    assured(OCTOBER)


@pytest.mark.parametrize(("milli", "quantity_mt"), [(625, -375_000_000), (1500, 500_000_000)])
def test_a_billed_month_that_is_rated_again_is_mended_on_the_next_invoice(
    node: Node, milli: int, quantity_mt: int
) -> None:
    use(node, 1, 1_000_000)
    bill(OCTOBER)
    apply(dry_run(milli))
    use(node, 2, 4_000_000, NOVEMBER_MORNING + HOUR)
    bill(NOVEMBER)
    november = 4_000_000 * milli
    assert lines(OCTOBER) == [(MILLION_MT, 400, OCTOBER)]
    assert lines(NOVEMBER) == [
        (quantity_mt, money.overage_fen(quantity_mt, 400), OCTOBER),
        (november, money.overage_fen(november, 400), NOVEMBER),
    ]
    assured(OCTOBER, NOVEMBER)


def test_a_bill_run_in_the_middle_of_a_rerating_bills_each_half_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        use(node, number, 1_000_000, MORNING + number * HOUR)
    found = dry_run(1500)
    rerating.begin(rerating_id=found.pk, actor="wang", now=NOVEMBER_MORNING)
    monkeypatch.setattr(rerating, "EVENTS_AT_ONCE", 1)
    owner = UsageEvent.objects.values_list("subscriber_id", flat=True)[0]
    begun = rerating.one(rerating_id=found.pk)
    assert rerating.apply_part(rerating=begun, owners=[owner], now=NOVEMBER_MORNING) == 1
    bill(OCTOBER)
    assert lines(OCTOBER) == [(3_500_000_000, 1400, OCTOBER)]
    rerating.apply(rerating_id=found.pk, clock=lambda: NOVEMBER_MORNING)
    bill(NOVEMBER)
    assert lines(NOVEMBER) == [(MILLION_MT, 400, OCTOBER)]
    assured(OCTOBER, NOVEMBER)
