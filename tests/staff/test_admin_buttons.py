"""Buttons call the activities with who pressed them, and refuse everybody else on the server."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from accounts import keys, lifecycle
from accounts.models import ApiKey, Subscriber, SubscriberTransition
from config import clock
from invoicing.models import Payment
from usage.models import InferenceModel, Node, NodeKey, QuarantinedEvent, UsageEvent, Weight

from .conftest import Carrier, living, member


def button(name: str, *args: object) -> str:
    return reverse(f"admin:{name}", args=args)


def press(client: Client, address: str, **fields: object) -> Any:
    return client.post(address, fields, follow=True, headers={"accept-language": "en"})


def test_support_suspends_with_a_reason_and_is_the_actor(carrier: Carrier, support: Client) -> None:
    address = button("accounts_subscriber_suspend", carrier.subscriber.pk)
    assert support.get(address).status_code == 200
    carrier.subscriber.refresh_from_db()
    assert carrier.subscriber.state == "active"  # looking at the question changes nothing
    press(support, address, reason="lost phone")
    carrier.subscriber.refresh_from_db()
    assert carrier.subscriber.state == "suspended"
    step = SubscriberTransition.objects.latest("id")
    assert (step.actor, step.reason) == ("support", "lost phone")
    assert LogEntry.objects.filter(user__username="support").count() == 1


def test_a_button_without_a_reason_does_nothing(carrier: Carrier, support: Client) -> None:
    address = button("accounts_subscriber_suspend", carrier.subscriber.pk)
    page = support.post(address, {"reason": "  "})
    assert page.status_code == 200
    assert page.context["form"].errors
    carrier.subscriber.refresh_from_db()
    assert carrier.subscriber.state == "active"


def test_a_refused_step_is_told_on_the_form(carrier: Carrier, support: Client) -> None:
    address = button("accounts_subscriber_resume", carrier.subscriber.pk)
    page = support.post(address, {"reason": "again"})
    assert page.status_code == 200
    assert page.context["form"].non_field_errors()
    assert not LogEntry.objects.exists()


def test_support_activates_resumes_and_changes_a_number(carrier: Carrier, support: Client) -> None:
    newcomer = carrier.newcomer
    for verb in ("activate", "suspend", "resume"):
        press(support, button(f"accounts_subscriber_{verb}", newcomer.pk), reason=verb)
    press(
        support,
        button("accounts_subscriber_change_number", newcomer.pk),
        msisdn="13900000077",
        reason="wish",
    )
    newcomer.refresh_from_db()
    assert (newcomer.state, newcomer.msisdn) == ("active", "+8613900000077")


def test_only_a_superuser_terminates(carrier: Carrier, support: Client, chief: Client) -> None:
    address = button("accounts_subscriber_terminate", carrier.newcomer.pk)
    assert press(support, address, reason="no").status_code == 403
    assert press(chief, address, reason="left").status_code == 200
    carrier.newcomer.refresh_from_db()
    assert carrier.newcomer.state == "terminated"


def test_support_replays_one_event_after_its_cause_is_mended(
    carrier: Carrier, support: Client
) -> None:
    mended = living(carrier.account, "13999999999")
    lifecycle.activate(subscriber_id=mended.pk, actor="demo", reason="new", now=clock.now())
    press(support, button("usage_quarantinedevent_replay", carrier.quarantined.pk))
    carrier.quarantined.refresh_from_db()
    assert carrier.quarantined.state == "replayed"
    assert carrier.quarantined.settled_by == "support"
    assert UsageEvent.objects.filter(subscriber_id=mended.pk).count() == 1


def test_support_dismisses_many_at_once(carrier: Carrier, support: Client) -> None:
    rows = {"action": "dismiss_selected", "_selected_action": [carrier.quarantined.pk]}
    support.post(button("usage_quarantinedevent_changelist"), rows)
    carrier.quarantined.refresh_from_db()
    assert (carrier.quarantined.state, carrier.quarantined.settled_by) == ("dismissed", "support")


@pytest.mark.parametrize("role", ["auditor", "finance", "catalogue manager"])
def test_others_cannot_settle_quarantine_even_by_a_forged_request(
    carrier: Carrier, role: str
) -> None:
    client = member(role)
    rows = {"action": "dismiss_selected", "_selected_action": [carrier.quarantined.pk]}
    client.post(button("usage_quarantinedevent_changelist"), rows)
    for verb in ("replay", "dismiss"):
        address = button(f"usage_quarantinedevent_{verb}", carrier.quarantined.pk)
        assert client.post(address).status_code == 403
    assert QuarantinedEvent.objects.get(pk=carrier.quarantined.pk).state == "open"


def test_finance_confirms_offline_money_and_is_named(carrier: Carrier, finance: Client) -> None:
    press(finance, button("invoicing_payment_confirm", carrier.payment.pk))
    carrier.payment.refresh_from_db()
    assert (carrier.payment.state, carrier.payment.confirmed_by) == ("succeeded", "finance")
    page = finance.get(button("invoicing_invoice_changelist"))
    assert [invoice.pk for invoice in page.context["cl"].result_list] == [carrier.invoice.pk]


def test_finance_rejects_offline_money_with_a_reason(carrier: Carrier, finance: Client) -> None:
    press(finance, button("invoicing_payment_reject", carrier.payment.pk), reason="never came")
    carrier.payment.refresh_from_db()
    assert (carrier.payment.state, carrier.payment.failure) == ("failed", "never came")


@pytest.mark.parametrize("role", ["auditor", "support", "catalogue manager"])
def test_others_cannot_confirm_money(carrier: Carrier, role: str) -> None:
    client = member(role)
    for verb in ("confirm", "reject"):
        address = button(f"invoicing_payment_{verb}", carrier.payment.pk)
        assert client.post(address, {"reason": "x"}).status_code == 403
    assert Payment.objects.get(pk=carrier.payment.pk).state == "pending"


def test_a_new_node_s_key_is_shown_once_and_works(carrier: Carrier, cataloguer: Client) -> None:
    page = press(cataloguer, button("usage_node_create"), name="wuxi-2", cluster="wuxi")
    assert "no-store" in page["Cache-Control"]
    token = page.context["secret"]
    key = keys.authenticate(token=token, now=clock.now())
    assert NodeKey.objects.get(api_key=key).node.name == "wuxi-2"
    node = Node.objects.get(name="wuxi-2")
    assert token not in cataloguer.get(button("usage_node_change", node.pk)).text


def test_a_node_s_key_is_replaced_and_the_old_one_revoked(
    carrier: Carrier, cataloguer: Client
) -> None:
    old = NodeKey.objects.get(node=carrier.node)
    page = press(cataloguer, button("usage_node_new_key", carrier.node.pk))
    press(cataloguer, button("usage_nodekey_revoke", old.pk))
    assert keys.authenticate(token=page.context["secret"], now=clock.now())
    assert ApiKey.objects.get(pk=old.api_key_id).revoked_at is not None


def test_a_name_that_is_taken_is_told_on_the_form(carrier: Carrier, cataloguer: Client) -> None:
    page = cataloguer.post(button("usage_node_create"), {"name": "wuxi-1"})
    assert page.context["form"].non_field_errors()
    assert Node.objects.count() == 1


def test_the_cataloguer_adds_a_model_and_weighs_it(carrier: Carrier, cataloguer: Client) -> None:
    press(cataloguer, button("usage_inferencemodel_put"), code="m-1", name="M", aliases="a, b,")
    model = InferenceModel.objects.get(code="m-1")
    weight = {f"{kind}_milli": 2000 for kind in ("input", "cached", "output", "reasoning")}
    address = button("usage_inferencemodel_put_weight", model.pk)
    press(cataloguer, address, valid_from="2026-11-01", **weight)
    assert model.aliases == ["a", "b"]
    assert Weight.objects.get(model=model).valid_from.isoformat() == "2026-10-31T16:00:00+00:00"


@pytest.mark.parametrize("role", ["auditor", "support", "finance"])
def test_others_make_no_nodes_keys_models_or_weights(carrier: Carrier, role: str) -> None:
    client = member(role)
    key = NodeKey.objects.get(node=carrier.node)
    model = InferenceModel.objects.get(code="telechat")
    for address in (
        button("usage_node_create"),
        button("usage_node_new_key", carrier.node.pk),
        button("usage_nodekey_revoke", key.pk),
        button("usage_inferencemodel_put"),
        button("usage_inferencemodel_put_weight", model.pk),
    ):
        assert client.post(address, {"name": "evil", "code": "evil"}).status_code == 403
    assert (Node.objects.count(), NodeKey.objects.count()) == (1, 1)


def test_a_staff_key_is_issued_by_superusers_only(
    carrier: Carrier, chief: Client, finance: Client, auditor: Client
) -> None:
    address = button("accounts_apikey_issue_staff_key")
    fields = {"name": "CRM", "scopes": ["accounts:read"]}
    for client in (finance, auditor):
        assert client.post(address, fields).status_code == 403
    page = chief.post(address, fields)
    assert keys.authenticate(token=page.context["secret"], now=clock.now()).name == "CRM"


def test_facts_have_no_edit_or_delete(carrier: Carrier, chief: Client) -> None:
    for name, row in (
        ("accounts_subscriber", carrier.subscriber),
        ("invoicing_invoice", carrier.invoice),
        ("usage_quarantinedevent", carrier.quarantined),
    ):
        assert chief.post(button(f"{name}_change", row.pk), {}).status_code == 403
        assert chief.post(button(f"{name}_delete", row.pk), {"post": "yes"}).status_code == 403
        assert chief.get(button(f"{name}_add")).status_code == 403
    assert Subscriber.objects.filter(pk=carrier.subscriber.pk).exists()
