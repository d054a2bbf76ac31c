"""The roles hold what the program defines, and none of them can raise itself."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command

from accounts.models import User
from accounts.roles import ROLES, ensure_roles

pytestmark = pytest.mark.django_db


def permissions_of(role: str) -> set[str]:
    granted = Permission.objects.filter(group__name=role).select_related("content_type")
    return {f"{each.content_type.app_label}.{each.codename}" for each in granted}


def test_the_four_roles_are_made_once_however_often_it_runs() -> None:
    ensure_roles()
    call_command("setup_roles")
    assert set(Group.objects.values_list("name", flat=True)) == {
        "auditor",
        "catalogue manager",
        "finance",
        "support",
    }


def test_permissions_that_were_tampered_with_return_and_members_stay() -> None:
    ensure_roles()
    group = Group.objects.get(name="auditor")
    member = User.objects.create_user(username="a")
    member.groups.add(group)
    before = permissions_of("auditor")
    group.permissions.add(Permission.objects.get(codename="delete_subscriber"))
    ensure_roles()
    assert permissions_of("auditor") == before
    assert list(member.groups.all()) == [group]


def test_the_auditor_sees_every_table_and_presses_nothing() -> None:
    ensure_roles()
    granted = permissions_of("auditor")
    assert all(".view_" in permission for permission in granted)
    expected = set(
        Permission.objects.filter(
            content_type__app_label__in=["accounts", "usage", "plans", "invoicing"],
            codename__startswith="view_",
        ).values_list("codename", flat=True)
    )
    assert {permission.split(".")[1] for permission in granted} == expected - {"view_user"}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_role_reaches_users_groups_permissions_or_keys(role: str) -> None:
    ensure_roles()
    forbidden = {"user", "group", "permission", "apikey"}
    changing = {
        permission
        for permission in permissions_of(role)
        if permission.split("_", 1)[1] in forbidden and ".view_" not in permission
    }
    assert changing == set()


def test_money_and_life_cycle_are_in_different_hands() -> None:
    ensure_roles()
    assert "accounts.change_subscriber" in permissions_of("support")
    assert "accounts.change_subscriber" not in permissions_of("finance")
    assert "invoicing.change_payment" in permissions_of("finance")
    assert "invoicing.change_payment" not in permissions_of("support")
    for role in ROLES:
        assert "accounts.delete_subscriber" not in permissions_of(role)
