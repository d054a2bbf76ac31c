"""Corrections by buttons: who may press them, what they move, and twice is once."""

from uuid import uuid4

import pytest
from django.test import Client

from usage import proof, tasks
from usage.models import Amendment, Rerating, UsageEvent, Weight

from .conftest import Carrier, member
from .test_admin_buttons import button, press

COUNTS = {"input": 100, "cached": 0, "output": 0, "reasoning": 0}


@pytest.fixture
def event(carrier: Carrier) -> UsageEvent:
    """The second of the carrier's events: 300 tokens."""
    return UsageEvent.objects.get(event_id="req-2")


def test_support_amends_with_what_the_event_counts_now_in_the_form(
    carrier: Carrier, support: Client, event: UsageEvent
) -> None:
    address = button("usage_usageevent_amend", event.pk)
    form = support.get(address).context["form"]
    assert form.get_initial_for_field(form.fields["input"], "input") == 300
    fields = COUNTS | {"reason": "recount", "key": str(uuid4())}
    for _twice in range(2):
        assert press(support, address, **fields).status_code == 200
    amendment = Amendment.objects.get(event_id=event.pk)
    assert (amendment.input_tokens, amendment.actor) == (-200, "support")
    page = support.get(button("usage_usageevent_change", event.pk))
    assert "recount" in page.content.decode()
    assert proof.verify() == []


def test_support_voids_and_the_buttons_go(
    carrier: Carrier, support: Client, event: UsageEvent
) -> None:
    page = button("usage_usageevent_change", event.pk)
    address = button("usage_usageevent_void", event.pk)
    assert address in support.get(page).content.decode()
    press(support, address, reason="test traffic")
    assert Amendment.objects.get(event_id=event.pk).kind == "void"
    assert address not in support.get(page).content.decode()
    assert support.post(address, {"reason": "again"}).status_code == 302  # the same answer
    assert Amendment.objects.filter(event_id=event.pk).count() == 1


@pytest.mark.parametrize("role", ["auditor", "finance", "catalogue manager"])
def test_others_cannot_correct_events(carrier: Carrier, event: UsageEvent, role: str) -> None:
    client = member(role)
    for verb in ("void", "amend"):
        address = button(f"usage_usageevent_{verb}", event.pk)
        assert client.post(address, COUNTS | {"reason": "r"}).status_code == 403
    assert not Amendment.objects.filter(event_id=event.pk).exists()


def test_finance_corrects_a_weight_and_rates_a_month_again(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.apply_rerating, "delay", tasks.apply_rerating)
    finance = member("finance")
    weight = Weight.objects.get()
    milli = dict.fromkeys(("input_milli", "cached_milli", "output_milli", "reasoning_milli"), 500)
    press(finance, button("usage_weight_correct", weight.pk), reason="typo", **milli)
    assert Weight.objects.get(withdrawn_at=None).input_milli == 500
    press(
        finance,
        button("usage_rerating_rate_again"),
        model="telechat",
        first="2026-10-01",
        end="2026-11-01",
        reason="typo",
    )
    found = Rerating.objects.latest("id")
    assert (found.state, found.report["changed"]) == ("dry", 2)
    page = finance.get(button("usage_rerating_change", found.pk))
    assert "-250" in page.content.decode()
    press(finance, button("usage_rerating_apply", found.pk))
    found.refresh_from_db()
    assert (found.state, found.applied_by) == ("applied", "finance")
    assert found.report["applied"]["difference_mt"] == found.report["difference_mt"] == -250_000
    assert proof.verify() == []


@pytest.mark.parametrize("role", ["auditor", "support", "catalogue manager"])
def test_only_finance_applies(carrier: Carrier, role: str) -> None:
    found = Rerating.objects.get()
    assert member(role).post(button("usage_rerating_apply", found.pk)).status_code == 403
    found.refresh_from_db()
    assert found.state == "dry"
