"""What staff see of a node's own totals, and the secret that signs what it is told."""

import pytest
from django.test import Client
from django.urls import reverse

from usage import callbacks, counters, ingest
from usage.models import Amendment, Node, QuarantinedEvent

from .conftest import Carrier
from .instants import NOON

ENGLISH = {"accept-language": "en"}


def test_the_auditor_compares_a_period_with_the_nodes(carrier: Carrier, auditor: Client) -> None:
    address = reverse("admin:invoicing_assuranceresult_by_node")
    page = auditor.get(address, {"start": "2026-10-01", "end": "2026-11-01"}, headers=ENGLISH)
    assert page.status_code == 200
    assert carrier.node.name in page.text
    amendment = Amendment.objects.get()
    assert reverse("admin:usage_amendment_change", args=[amendment.pk]) in page.text
    raw, paid = page.context["tables"]
    for row in (0, -1):  # the node, and the hour of the event
        assert raw["rows"][row]["values"][-2:] == ["-100", "500"]
        assert paid["rows"][row]["values"][:4] == ["600", "-100", "500", "400"]


def test_a_difference_to_a_node_leads_to_its_evidence(carrier: Carrier, auditor: Client) -> None:
    """Both counts, the hours, what is in quarantine, numbers that are missing, the rounding."""
    node = carrier.node
    totals = [counters.Totals("", 9_000_000, 0, 0, rounding=5)]
    counters.take(node_id=node.pk, totals=totals, at=NOON, now=NOON)
    for number in (1, 4):
        ingest.ingest(node=node, events=[], now=NOON, sequence=number)
    address = reverse("admin:invoicing_assuranceresult_by_node")
    page = auditor.get(address, {"start": "2026-10-01", "end": "2026-11-01"}, headers=ENGLISH)
    counted, missing = page.context["differences"]
    assert (counted["where"], counted["expected"]) == (node.name, "9,000,000")
    refused = QuarantinedEvent.objects.get()
    assert counted["evidence"][0] == "The engine has rounded by at most 5."
    assert counted["evidence"][2] == "Missing numbers: 2–3"
    assert reverse("admin:usage_quarantinedevent_change", args=[refused.pk]) in page.text
    assert refused.event_id in page.text
    assert (missing["rule"], missing["by"]) == ("Every numbered batch arrived", "2")


def test_a_period_that_is_empty_is_refused_on_the_page(carrier: Carrier, auditor: Client) -> None:
    address = reverse("admin:invoicing_assuranceresult_by_node")
    page = auditor.get(address, {"start": "2026-11-01", "end": "2026-10-01"}, headers=ENGLISH)
    assert page.status_code == 200
    assert page.context["form"].errors


def test_a_node_s_secret_is_shown_when_made_and_never_again(
    carrier: Carrier, cataloguer: Client
) -> None:
    address = reverse("admin:usage_node_new_secret", args=[carrier.node.pk])
    shown = cataloguer.post(address, headers=ENGLISH).text
    secret = Node.objects.get(pk=carrier.node.pk).callback_secret
    assert secret
    assert secret in shown
    page = cataloguer.get(reverse("admin:usage_node_change", args=[carrier.node.pk])).text
    assert secret not in page


@pytest.mark.parametrize("role", ["support", "finance", "auditor"])
def test_others_make_no_secret(carrier: Carrier, role: str, request: pytest.FixtureRequest) -> None:
    client: Client = request.getfixturevalue(role)
    before = callbacks.renew_secret(node_id=carrier.node.pk)
    address = reverse("admin:usage_node_new_secret", args=[carrier.node.pk])
    assert client.post(address).status_code == 403
    assert Node.objects.get(pk=carrier.node.pk).callback_secret == before


def test_a_node_is_switched_off_and_on_by_the_cataloguer(
    carrier: Carrier, cataloguer: Client, support: Client
) -> None:
    for verb, active in (("switch_off", False), ("switch_on", True)):
        address = reverse(f"admin:usage_node_{verb}", args=[carrier.node.pk])
        assert support.post(address).status_code == 403
        assert cataloguer.get(address).status_code == 200
        cataloguer.post(address)
        carrier.node.refresh_from_db()
        assert carrier.node.active is active
