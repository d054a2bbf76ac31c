"""The roles of the staff site: which group sees and presses what.

Facts are edited by nobody, so "change" and its siblings stand for the buttons of a page:
change_subscriber suspends and resumes, delete_subscriber terminates, add_node and change_node make
and replace node keys, change_quarantinedevent replays and dismisses, change_payment confirms
offline money, add_billrun starts the billing, change_usageevent amends and voids events,
change_weight corrects a wrong weight, add_rerating makes a dry run and change_rerating applies it,
change_bucket adjusts, voids and transfers, add_bucket gives tokens to a subscriber or a pool,
add_pool makes a pool and change_pool its members and caps.
Users, groups and staff keys belong to superusers alone, so nobody can raise themselves.
"""

from collections.abc import Iterable
from typing import Final

from django.contrib.auth.models import Group, Permission
from django.db import transaction

APPS: Final = ("accounts", "usage", "plans", "invoicing")

# A role's permissions: "view app.*" for every model of an app, else "app.codename".
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "catalogue manager": (
        "view plans.*",
        "usage.view_inferencemodel",
        "usage.add_inferencemodel",
        "usage.change_inferencemodel",
        "usage.view_weight",
        "usage.change_weight",
        "usage.view_rerating",
        "usage.add_rerating",
        "usage.view_node",
        "usage.add_node",
        "usage.change_node",
        "usage.view_nodekey",
        "usage.view_usagebatch",
        "usage.view_usagetally",
        "invoicing.view_taxrate",
    ),
    "support": (
        "view accounts.*",
        "view usage.*",
        "view plans.*",
        "accounts.change_subscriber",
        "usage.change_quarantinedevent",
        "usage.change_usageevent",
        "usage.change_bucket",
        "usage.add_bucket",
        "usage.add_pool",
        "usage.change_pool",
    ),
    "finance": (
        "accounts.view_account",
        "accounts.view_subscriber",
        "accounts.view_numberassignment",
        "usage.view_overage",
        "usage.view_cycleoverage",
        "usage.view_amendment",
        "usage.view_inferencemodel",
        "usage.view_weight",
        "usage.change_weight",
        "usage.view_rerating",
        "usage.add_rerating",
        "usage.change_rerating",
        "view plans.*",
        "view invoicing.*",
        "invoicing.change_payment",
        "invoicing.add_billrun",
    ),
    "auditor": tuple(f"view {app}.*" for app in APPS),
}

# Who may sign in and with what is not shown to roles, only to superusers.
HIDDEN: Final = {"view_user"}


@transaction.atomic
def ensure_roles() -> list[Group]:
    """Give each role exactly the permissions listed above; members of the groups stay.

    Needs migrated tables. Returns the groups by name.
    """
    groups = []
    for name in sorted(ROLES):
        group, _created = Group.objects.get_or_create(name=name)
        group.permissions.set(_permissions(ROLES[name]))
        groups.append(group)
    return groups


def _permissions(rules: Iterable[str]) -> list[Permission]:
    known = {
        (permission.content_type.app_label, permission.codename): permission
        for permission in Permission.objects.filter(
            content_type__app_label__in=APPS
        ).select_related("content_type")
    }
    granted: list[Permission] = []
    for rule in rules:
        if rule.startswith("view "):
            app = rule.removeprefix("view ").removesuffix(".*")
            granted += [
                permission
                for (label, codename), permission in known.items()
                if label == app and codename.startswith("view_") and codename not in HIDDEN
            ]
        else:
            app, codename = rule.split(".")
            granted.append(known[app, codename])
    return granted
