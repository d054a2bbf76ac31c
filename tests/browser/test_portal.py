"""A subscriber with a phone in the hand: signs in, reads, buys, changes the language."""

import re
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from accounts.models import Subscriber
from tests.browser.conftest import DESKTOP, NUMBER, PHONE, OpenPage
from tests.browser.sender import SENT
from usage import pools
from usage.ledger import Grant
from usage.models import Bucket

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def sign_in(page: Page) -> None:
    page.goto("/")
    page.get_by_label("手机号码").fill("139 0000 0001")
    page.get_by_role("button", name="获取验证码").click()
    field = page.get_by_label("验证码")
    expect(field).to_be_visible()
    field.fill(code_sent())
    page.get_by_role("button", name="登录").click()
    expect(page).to_have_url(re.compile("/$"))


def code_sent() -> str:
    recipient, body = SENT[-1]
    assert recipient == NUMBER
    return str(re.findall(r"\d{6}", body)[0])


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_a_subscriber_signs_in_and_reads_the_balance_in_both_languages(
    open_page: OpenPage, subscriber: Subscriber, viewport: ViewportSize
) -> None:
    page = open_page(viewport)
    sign_in(page)
    bucket = Bucket.objects.get(subscriber=subscriber)
    expect(page.locator("#balance")).to_have_attribute("data-mt", str(bucket.remaining_mt))
    expect(page.get_by_role("heading", name="剩余词元")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="Tokens left")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_no_page_scrolls_sideways_on_a_phone(open_page: OpenPage, subscriber: Subscriber) -> None:
    page = open_page(PHONE)
    sign_in(page)
    for path in ("/", "/plans/", "/plans/token-9.9/", "/packs/pack-250k/", "/invoices/", "/keys/"):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{path} is {wide} px wider than the screen"


def test_a_pack_bought_on_the_phone_raises_the_balance(
    open_page: OpenPage, subscriber: Subscriber
) -> None:
    page = open_page(PHONE)
    sign_in(page)
    before = int(page.locator("#balance").get_attribute("data-mt") or 0)
    page.get_by_role("link", name=re.compile("购买 词元加油包 25 万")).click()
    page.get_by_role("button", name=re.compile("¥1.00")).click()
    expect(page.get_by_role("status")).to_contain_text("购买成功")
    expect(page.locator("#balance")).to_have_attribute("data-mt", str(before + 250_000_000))


def test_the_chart_turns_back_a_month_without_loading_the_page_again(
    open_page: OpenPage, subscriber: Subscriber
) -> None:
    page = open_page(DESKTOP)
    sign_in(page)
    page.evaluate("window.sameDocument = true")
    shown = page.locator("#usage .pager strong")
    first = shown.inner_text()
    page.get_by_role("link", name="上一个").click()
    expect(shown).not_to_have_text(first)
    expect(page).to_have_url(re.compile(r"month=\d{4}-\d{2}"))
    assert page.evaluate("window.sameDocument === true")


def test_the_keyboard_reaches_the_content_first(
    open_page: OpenPage, subscriber: Subscriber
) -> None:
    page = open_page(DESKTOP)
    sign_in(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="跳到正文")).to_be_focused()


def test_a_pool_s_share_fits_a_phone_in_both_languages(
    open_page: OpenPage, subscriber: Subscriber, now: datetime
) -> None:
    name = "Zhangjiang Artificial Intelligence Laboratory, shared tokens of all project groups"
    pool = pools.create_pool(
        account_id=subscriber.account_id, name=name, kind="enterprise", now=now
    )
    pools.join(
        pool_id=pool.pk, subscriber_id=subscriber.pk, actor="clerk", now=now,
        cycle_cap_mt=10**13 + 234_567, day_cap_mt=10**12 + 1,
    )  # fmt: skip
    pools.grant_to_pool(
        wanted=Grant(
            pool_id=pool.pk, kind="plan", name="p", name_en="p", amount_mt=10**13, key="p",
            valid_from=now, valid_until=now + timedelta(days=1),
        ),
        now=now,
    )  # fmt: skip
    page = open_page(PHONE)
    sign_in(page)
    for heading in ("剩余词元", "Tokens left"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        expect(page.locator("#pool-left")).to_have_attribute("data-mt", str(10**12 + 1))
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"the page is {wide} px wider than the screen"
        if heading == "剩余词元":
            page.get_by_role("button", name="English").click()
