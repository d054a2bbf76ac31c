"""Staff at the desk and on the way: a bucket is adjusted, a pool read, on every width."""

from uuid import uuid4

import pytest
from django.contrib.auth.models import Group
from playwright.sync_api import Locator, Page, ViewportSize, expect

from accounts.models import Subscriber, User
from accounts.roles import ensure_roles
from config import clock
from config.formatting import exact_tokens
from tests.browser.conftest import DESKTOP, PHONE, OpenPage
from usage import movements, pools
from usage.models import Bucket, Pool

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def pool(subscriber: Subscriber) -> Pool:
    now = clock.now()
    pool = pools.create_pool(
        account_id=subscriber.account_id, name="一家人", kind="family", now=now
    )
    pools.join(pool_id=pool.pk, subscriber_id=subscriber.pk, actor="test", day_cap_mt=5000, now=now)
    return pool


def sign_in(page: Page, role: str) -> None:
    ensure_roles()
    password = uuid4().hex
    user = User.objects.create_user(username="li", password=password, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    page.goto("/admin/")
    page.locator("[name=username]").fill("li")
    page.locator("[name=password]").fill(password)
    page.locator("button[type=submit]").click()
    expect(page.locator("#main")).to_be_visible()


def error_naming(page: Page, free_mt: int) -> Locator:
    """The refusal, which says how much is free."""
    return page.locator(".bg-red-100").filter(has_text=exact_tokens(free_mt))


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_support_adjusts_a_bucket_after_a_refusal_with_what_was_typed(
    open_page: OpenPage, subscriber: Subscriber, viewport: ViewportSize
) -> None:
    bucket = Bucket.objects.get(subscriber=subscriber)
    page = open_page(viewport)
    sign_in(page, "support")
    page.goto(f"/admin/usage/bucket/{bucket.pk}/adjust/")
    amount = page.locator("[name=amount_mt]")
    amount.fill("-99999999")
    page.locator("[name=reason]").fill("多发了")
    send = page.locator("form:has([name=amount_mt]) button[type=submit]")
    send.click()
    expect(error_naming(page, bucket.remaining_mt)).to_be_visible()
    expect(amount).to_have_value("-99999999")
    expect(page.locator("[name=reason]")).to_have_value("多发了")
    amount.fill("-0.5")
    send.click()
    page.wait_for_url(f"**/admin/usage/bucket/{bucket.pk}/change/")
    bucket.refresh_from_db()
    assert bucket.adjusted_mt == -500


def test_no_page_about_pools_and_movements_scrolls_sideways_on_a_phone(
    open_page: OpenPage, subscriber: Subscriber, pool: Pool
) -> None:
    bucket = Bucket.objects.get(subscriber=subscriber)
    page = open_page(PHONE)
    sign_in(page, "support")
    member = pool.members.get()
    for path in (
        "pool/",
        f"pool/{pool.pk}/change/",
        f"pool/{pool.pk}/let_in/",
        f"pool/{pool.pk}/give_to_pool/",
        "poolmember/",
        f"poolmember/{member.pk}/change/",
        f"poolmember/{member.pk}/change_caps/",
        "movement/",
        f"bucket/{bucket.pk}/change/",
        f"bucket/{bucket.pk}/transfer/",
    ):
        page.goto(f"/admin/usage/{path}")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{path} is {wide} px wider than the screen"


def test_a_long_reason_is_read_in_full_on_a_phone(
    open_page: OpenPage, subscriber: Subscriber
) -> None:
    bucket = Bucket.objects.get(subscriber=subscriber)
    movements.adjust(
        bucket_id=bucket.pk, amount_mt=-1500, key="k", actor="li", reason="多发了" * 20,
        now=clock.now(),
    )  # fmt: skip
    page = open_page(PHONE)
    sign_in(page, "support")
    for path in ("movement/", f"ledgerentry/?q={bucket.pk}"):
        page.goto(f"/admin/usage/{path}")
        cell = page.locator("#result_list td", has_text="多发了").last
        hidden = cell.evaluate("cell => cell.scrollHeight - cell.clientHeight")
        assert hidden <= 0, f"{path} hides {hidden} px of the reason"


def test_a_member_is_found_from_the_pool_and_leaves(
    open_page: OpenPage, subscriber: Subscriber, pool: Pool
) -> None:
    page = open_page(DESKTOP)
    sign_in(page, "support")
    page.goto(f"/admin/usage/pool/{pool.pk}/change/")
    member = pool.members.get()
    page.locator(f"a[href='/admin/usage/poolmember/{member.pk}/change/']").first.click()
    page.locator(f"a[href='/admin/usage/poolmember/{member.pk}/leave/']").click()
    page.locator("form.max-w-2xl button[type=submit]").click()
    page.wait_for_url(f"**/admin/usage/pool/{pool.pk}/change/")
    member.refresh_from_db()
    assert member.left_by == "li"
