"""The proof on a page, the bill run's button and the invoice as PDF."""

import json
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connection
from django.test import Client
from django.urls import reverse

from config.celery import app
from config.columns import APPS
from config.labels import LABELS
from invoicing.models import AssuranceResult, BillRun

from .conftest import Carrier

PERIOD = {"start": "2026-10-01", "end": "2026-11-01"}
ENGLISH = {"accept-language": "en"}


def test_the_auditor_proves_a_period_and_nothing_is_written(
    carrier: Carrier, auditor: Client
) -> None:
    page = auditor.get(reverse("admin:invoicing_assuranceresult_prove"), PERIOD, headers=ENGLISH)
    identities = page.context["identities"]
    assert [row["holds"] for row in identities] == [True] * len(identities)
    assert (identities[0]["left"], identities[1]["left"]) == ("3", "500")
    assert AssuranceResult.objects.count() == 1


def test_a_lost_event_shows_as_a_difference(carrier: Carrier, auditor: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE usage_usageevent DISABLE TRIGGER USER")
        cursor.execute("DELETE FROM usage_usageevent WHERE event_id = 'req-1'")
        cursor.execute("ALTER TABLE usage_usageevent ENABLE TRIGGER USER")
    page = auditor.get(reverse("admin:invoicing_assuranceresult_prove"), PERIOD)
    assert page.context["report"]["differences"]
    answer = auditor.post(reverse("admin:invoicing_assuranceresult_verify"))
    assert answer.context["differences"]


def test_a_whole_ledger_is_said_to_be_proven(carrier: Carrier, auditor: Client) -> None:
    address = reverse("admin:invoicing_assuranceresult_verify")
    page = auditor.post(address, follow=True, headers=ENGLISH)
    assert [str(message) for message in page.context["messages"]] == [
        "Proven: every bucket equals its ledger, every event is accounted for."
    ]


def test_a_period_that_is_too_long_or_backwards_is_refused(
    carrier: Carrier, auditor: Client
) -> None:
    for period in ({"start": "2026-10-01", "end": "2026-10-01"}, {"start": "2020-01-01"}):
        page = auditor.get(reverse("admin:invoicing_assuranceresult_prove"), {**PERIOD, **period})
        assert page.context["form"].errors
        assert page.context["report"] is None


def test_finance_hands_a_cycle_to_the_worker(
    carrier: Carrier, finance: Client, auditor: Client
) -> None:
    address = reverse("admin:invoicing_billrun_run")
    assert auditor.post(address, {"cycle": "2026-09"}).status_code == 403
    finance.post(address, {"cycle": "2026-09"})
    assert waiting("invoicing.tasks.issue_invoices") == [["2026-09"]]


def test_a_cycle_that_has_not_ended_is_refused_at_the_button(
    carrier: Carrier, finance: Client
) -> None:
    for cycle in ("2026-10", "October"):
        page = finance.post(reverse("admin:invoicing_billrun_run"), {"cycle": cycle})
        assert page.context["form"].non_field_errors()
    assert BillRun.objects.count() == 1


def waiting(task: str) -> list[Any]:
    """Takes what waits on the real broker; the arguments of that task's messages."""
    taken = []
    with app.connection_for_read() as link:
        q = link.SimpleQueue(settings.CELERY_TASK_DEFAULT_QUEUE)
        with suppress(q.Empty):
            while True:
                message = q.get(block=False)
                message.ack()
                if message.headers["task"] == task:
                    taken.append(json.loads(message.body or "[]")[0])
    return taken


def test_an_invoice_is_downloaded_as_pdf(carrier: Carrier, finance: Client) -> None:
    address = reverse("admin:invoicing_invoice_download", args=[carrier.invoice.pk])
    answer = finance.get(address)
    assert answer["Content-Type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF")


def test_an_invoice_is_not_for_support(carrier: Carrier, support: Client) -> None:
    address = reverse("admin:invoicing_invoice_download", args=[carrier.invoice.pk])
    assert support.get(address).status_code == 403


def test_every_column_has_a_label_of_its_own() -> None:
    nameless = {
        f"{model._meta.label}.{field.name}"
        for name in APPS
        for model in apps.get_app_config(name).get_models()
        if model._meta.label != "accounts.User"
        for field in model._meta.concrete_fields
        if field.name not in LABELS
    }
    assert nameless == set()


def test_buttons_show_only_where_they_fit(carrier: Carrier, support: Client) -> None:
    def offered(subscriber: Any) -> set[str]:
        page = support.get(
            reverse("admin:accounts_subscriber_change", args=[subscriber.pk]), headers=ENGLISH
        )
        return {str(button["title"]) for button in page.context["actions_detail"]}

    assert offered(carrier.subscriber) == {"Suspend", "Change number", "Give tokens"}
    assert offered(carrier.newcomer) == {"Activate", "Change number", "Give tokens"}
