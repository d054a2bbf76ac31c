"""Pools in the staff site: made, shared, capped and left by buttons, and read by who may look."""

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from usage import ingest
from usage.models import UNCAPPED, Bucket, Pool, PoolMember

from .conftest import Carrier, event, living, member
from .instants import NOON

ENGLISH = {"accept-language": "en"}


def button(name: str, *args: object) -> str:
    return reverse(f"admin:{name}", args=args)


def press(client: Client, address: str, **fields: object) -> Any:
    return client.post(address, fields, follow=True, headers=ENGLISH)


def membership(carrier: Carrier) -> PoolMember:
    return PoolMember.objects.get(subscriber=carrier.newcomer, left_at=None)


@pytest.fixture
def used(carrier: Carrier) -> Carrier:
    """The member has taken 40 of the 50 it may take a month."""
    ingest.ingest(node=carrier.node, events=[event(9, "+8613900000002", tokens=40)], now=NOON)
    return carrier


def test_a_pool_s_page_shows_payer_amounts_members_caps_and_use(
    used: Carrier, auditor: Client
) -> None:
    page = auditor.get(button("usage_pool_change", used.pool.pk), headers=ENGLISH).text
    for shown in ("王小明", "Family", "1,000", "960", "家庭包", "+8613900000002", "50", "40"):
        assert shown in page
    assert "no cap" in page
    listed = auditor.get(button("usage_pool_changelist"), headers=ENGLISH).text
    assert "一家人" in listed
    assert "960" in listed
    for row in (used.newcomer, used.account):
        name = f"accounts_{row._meta.model_name}_change"
        assert "一家人" in auditor.get(button(name, row.pk)).text


def test_support_makes_a_pool_that_an_account_pays_for(carrier: Carrier, support: Client) -> None:
    address = button("usage_pool_create")
    page = press(support, address, name="公司", kind="enterprise", account="nobody")
    assert "There is no such account" in page.text
    for account in ("13900000001", "王小明", str(carrier.account.pk)):
        page = press(support, address, name=f"p {account}", kind="enterprise", account=account)
        pool = Pool.objects.get(name=f"p {account}")
        assert pool.account_id == carrier.account.pk
        assert page.redirect_chain[-1][0] == button("usage_pool_change", pool.pk)


def test_an_account_s_name_that_several_have_is_asked_by_id(
    carrier: Carrier, support: Client
) -> None:
    carrier.account.pk = None
    carrier.account.save()
    page = press(support, button("usage_pool_create"), name="p", kind="family", account="王小明")
    assert "Several accounts have this name" in page.text


def test_support_lets_a_member_in_with_caps(carrier: Carrier, support: Client) -> None:
    third = living(carrier.account, "13900000003")
    address = button("usage_pool_let_in", carrier.pool.pk)
    page = press(support, address, subscriber="13900000003", day_cap_mt="2.5")
    assert "+8613900000003 may draw on the pool now." in page.text
    joined = PoolMember.objects.get(subscriber=third)
    assert (joined.cycle_cap_mt, joined.day_cap_mt) == (UNCAPPED, 2500)
    assert joined.joined_by == "support"
    page = press(support, address, subscriber=str(third.pk), day_cap_mt="3")
    assert "let them leave it first" in page.context["form"].non_field_errors()[0]
    assert 'value="3"' in page.text


def test_caps_are_changed_from_what_they_are(carrier: Carrier, support: Client) -> None:
    first = membership(carrier)
    address = button("usage_poolmember_change_caps", first.pk)
    assert 'value="50"' in support.get(address).text
    page = press(support, address, cycle_cap_mt="", day_cap_mt="7")
    assert page.redirect_chain[-1][0] == button("usage_pool_change", carrier.pool.pk)
    now = membership(carrier)
    assert (now.cycle_cap_mt, now.day_cap_mt) == (UNCAPPED, 7000)
    first.refresh_from_db()
    assert first.left_by == "support"
    page = press(support, button("usage_poolmember_leave", first.pk))  # ended, yet they are in
    assert not PoolMember.objects.filter(left_at=None).exists()


def test_a_member_leaves_and_the_history_stays(used: Carrier, support: Client) -> None:
    row = membership(used)
    page = press(support, button("usage_poolmember_leave", row.pk))
    assert "has left the pool" in page.text
    row.refresh_from_db()
    assert (row.left_at, row.left_by) == (NOON, "support")
    history = support.get(button("usage_pool_change", used.pool.pk)).text
    assert "+8613900000002" in history
    assert "support" in history
    page = press(support, button("usage_poolmember_leave", row.pk))
    assert "This membership has ended" in page.text


def test_support_gives_a_pool_tokens_once_a_form(carrier: Carrier, support: Client) -> None:
    address = button("usage_pool_give_to_pool", carrier.pool.pk)
    form = {
        "name": "加量",
        "kind": "promotion",
        "amount_mt": "12.5",
        "last_day": "2026-10-31",
        "reason": "gift",
        "key": uuid4(),
    }
    for said in ("Granted: 12.5 standard tokens.", "nothing moved again", "open it again"):
        assert said in press(support, address, **form).text
        if said == "nothing moved again":
            form["amount_mt"] = "13"
    bucket = Bucket.objects.get(pool=carrier.pool, kind="promotion")
    assert bucket.remaining_mt == 12_500


@pytest.mark.parametrize("role", ["auditor", "finance", "catalogue manager"])
def test_others_change_no_pool(carrier: Carrier, role: str) -> None:
    client = member(role)
    row = membership(carrier)
    for address in (
        button("usage_pool_create"),
        button("usage_pool_let_in", carrier.pool.pk),
        button("usage_pool_give_to_pool", carrier.pool.pk),
        button("usage_poolmember_change_caps", row.pk),
        button("usage_poolmember_leave", row.pk),
    ):
        assert client.get(address).status_code == 403
        assert press(client, address, name="x", reason="x", amount_mt="1").status_code == 403
    assert Pool.objects.count() == 1
    assert membership(carrier) == row


@pytest.mark.parametrize(("role", "status"), [("auditor", 200), ("finance", 403)])
def test_who_may_look_at_pools(carrier: Carrier, role: str, status: int) -> None:
    client = member(role)
    for name, row in (("usage_pool", carrier.pool), ("usage_poolmember", membership(carrier))):
        assert client.get(button(f"{name}_changelist")).status_code == status
        page = client.get(button(f"{name}_change", row.pk))
        assert page.status_code == status
        assert "let_in" not in page.text


def test_a_pool_is_found_by_a_member_s_number(carrier: Carrier, auditor: Client) -> None:
    for term, found in (("13900000002", 1), ("13900000001", 0), ("一家人", 1)):
        page = auditor.get(button("usage_pool_changelist"), {"q": term})
        assert page.context["cl"].result_count == found


def test_a_page_costs_as_many_queries_with_one_member_as_with_ten(
    carrier: Carrier, support: Client, auditor: Client
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            auditor.get(button("usage_pool_change", carrier.pool.pk))
            auditor.get(button("usage_poolmember_changelist"))
        return len(seen)

    queries()  # Django looks up the types of content once a process, whoever asks first
    first = queries()
    for number in range(10, 19):
        living(carrier.account, f"139000000{number}")
        press(
            support, button("usage_pool_let_in", carrier.pool.pk), subscriber=f"139000000{number}"
        )
    assert PoolMember.objects.count() == 10
    assert queries() == first
