"""Every page of the staff site opens, with data, within a fixed number of queries."""

from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from .conftest import Carrier

OURS = {"accounts", "usage", "plans", "invoicing", "auth"}
PAGES = sorted(
    (model for model in admin.site._registry if model._meta.app_label in OURS),
    key=lambda model: model._meta.label,
)


def list_of(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def page_of(row: Model) -> str:
    options = row._meta
    return reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk])


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model._meta.label)
def test_every_list_and_every_page_opens(
    carrier: Carrier, chief: Client, model: type[Model]
) -> None:
    row = model._default_manager.first()
    assert row is not None, f"the carrier of these tests has no {model._meta.label}"
    listed = chief.get(list_of(model), follow=True)
    assert listed.status_code == 200
    assert listed.context["cl"].result_count >= 1
    assert chief.get(page_of(row)).status_code == 200


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model._meta.label)
def test_every_list_can_be_searched_for_anything(
    carrier: Carrier, chief: Client, model: type[Model]
) -> None:
    for term in ("13900000001", "1", "' OR 1=1 --", "９９", "9" * 30, "x\x00y"):
        assert chief.get(list_of(model), {"q": term}, follow=True).status_code == 200


# What a list may ask of the database: session, user, its permissions, the count, the rows, and
# the choices of its filters. None of it may grow with the number of rows.
QUERIES = {
    "accounts.Account": 6,
    "accounts.ApiKey": 6,
    "accounts.Subscriber": 6,
    "usage.UsageEvent": 8,
    "usage.UsageBatch": 7,
    "usage.QuarantinedEvent": 9,
    "usage.Bucket": 6,
    "usage.LedgerEntry": 7,
    "usage.Overage": 7,
    "plans.Charge": 6,
    "invoicing.Invoice": 6,
    "invoicing.Payment": 6,
}


@pytest.mark.parametrize("label", QUERIES)
def test_a_list_costs_a_fixed_number_of_queries(
    carrier: Carrier, auditor: Client, label: str
) -> None:
    address = auditor.get(list_of(apps.get_model(label)), follow=True).request
    with CaptureQueriesContext(connection) as queries:
        auditor.get(f"{address['PATH_INFO']}?{address['QUERY_STRING']}")
    assert len(queries) == QUERIES[label], [query["sql"] for query in queries]


def test_the_overview_shows_what_is_going_on(carrier: Carrier, chief: Client) -> None:
    page = chief.get(reverse("admin:index"), headers={"accept-language": "en"})
    values = {card.title: card.value for card in page.context["cards"]}
    assert values == {
        "Events accepted today": "2",
        "Tokens accepted today": "500",  # 600, of which an amendment took 100 back
        "Exhausted subscribers": "0",
        "Open in quarantine": "1",
        "Unpaid invoices": "1",
        "Last proof": "proven",
    }
    assert page.context["chart"][-1]["mt"] == 500_000


def test_no_page_counts_a_table_without_bound(carrier: Carrier, chief: Client) -> None:
    unbounded: list[Any] = []
    for model in PAGES:
        if model is Group:
            continue  # a handful of roles
        with CaptureQueriesContext(connection) as queries:
            chief.get(list_of(model), follow=True)
        unbounded += [
            (model._meta.label, query["sql"])
            for query in queries
            if "COUNT(*)" in query["sql"] and "LIMIT" not in query["sql"]
        ]
    assert unbounded == []
