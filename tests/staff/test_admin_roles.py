"""What each role may open; sign-in and role pages are for superusers alone."""

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from accounts.models import User

from .conftest import Carrier, member

OPEN = {
    "auditor": {
        "accounts.subscriber",
        "accounts.apikey",
        "usage.usageevent",
        "usage.ledgerentry",
        "plans.plan",
        "invoicing.invoice",
        "invoicing.assuranceresult",
    },
    "support": {
        "accounts.subscriber",
        "accounts.apikey",
        "usage.usageevent",
        "usage.ledgerentry",
        "plans.plan",
    },
    "finance": {
        "accounts.subscriber",
        "plans.plan",
        "invoicing.invoice",
        "invoicing.assuranceresult",
    },
    "catalogue manager": {"plans.plan", "usage.node"},
}
ALL = sorted(set().union(*OPEN.values()) | {"accounts.user", "auth.group"})


@pytest.mark.parametrize("role", sorted(OPEN))
def test_a_role_opens_its_pages_and_no_others(carrier: Carrier, role: str) -> None:
    client = member(role)
    for label in ALL:
        address = reverse(f"admin:{label.replace('.', '_')}_changelist")
        allowed = label in OPEN[role] or (label == "usage.node" and role in {"auditor", "support"})
        expected = 200 if allowed else 403
        assert client.get(address, follow=True).status_code == expected, label


@pytest.mark.parametrize("role", sorted(OPEN))
def test_no_role_raises_itself(carrier: Carrier, role: str) -> None:
    client = member(role)
    me = User.objects.get(username=role.replace(" ", "-"))
    group = Group.objects.get(name=role)
    raised = {"username": me.username, "is_staff": "on", "is_superuser": "on"}
    for address in (
        reverse("admin:accounts_user_change", args=[me.pk]),
        reverse("admin:accounts_user_add"),
        reverse("admin:auth_user_password_change", args=[me.pk]),
        reverse("admin:auth_group_change", args=[group.pk]),
    ):
        assert client.post(address, raised).status_code == 403
    me.refresh_from_db()
    assert not me.is_superuser


def test_a_superuser_makes_a_member_of_staff(carrier: Carrier, chief: Client) -> None:
    passwords = {"password1": "Lang-genug-26", "password2": "Lang-genug-26"}
    chief.post(
        reverse("admin:accounts_user_add"),
        {"username": "li", "usable_password": "true", **passwords},
    )
    person = User.objects.get(username="li")
    chief.post(
        reverse("admin:accounts_user_change", args=[person.pk]),
        {
            "username": "li",
            "is_active": "on",
            "is_staff": "on",
            "groups": [Group.objects.get(name="support").pk],
            "date_joined_0": "2026-10-05",
            "date_joined_1": "12:00:00",
        },
    )
    assert list(person.groups.values_list("name", flat=True)) == ["support"]


def test_a_subscriber_s_own_session_never_enters(carrier: Carrier) -> None:
    client = Client()
    assert carrier.subscriber.user is not None
    client.force_login(carrier.subscriber.user, backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(reverse("admin:index"))
    assert page.status_code == 302
    assert "/login/" in page["Location"]


@pytest.mark.parametrize("role", sorted(OPEN))
def test_the_overview_and_its_sidebar_open_for_every_role(carrier: Carrier, role: str) -> None:
    page = member(role).get(reverse("admin:index"))
    assert page.status_code == 200
    links = {
        str(item["link"])
        for group in page.context["sidebar_navigation"]
        for item in group["items"]
        if item["has_permission"]
    }
    allowed = {reverse(f"admin:{label.replace('.', '_')}_changelist") for label in OPEN[role]}
    assert allowed <= links
    assert reverse("admin:accounts_user_changelist") not in links
