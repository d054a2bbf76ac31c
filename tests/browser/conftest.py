"""Chromium of the distribution on a live server; what is missing is said, never skipped."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import Subscriber
from config import clock
from plans import catalogue, subscribing
from tests.browser.sender import SENT

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NUMBER = "+8613900000001"
PHONE = ViewportSize(width=360, height=740)
DESKTOP = ViewportSize(width=1280, height=900)

OpenPage = Callable[[ViewportSize], Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        what = "Install Chromium: apt-get install -y chromium fonts-noto-cjk"
        # A newcomer's machine may lack a browser; where the suite must be whole, it may not.
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
    # Playwright's loop makes Django think that the test itself is asynchronous.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def open_page(chromium: Browser, live_server: LiveServer, settings: Settings) -> Iterator[OpenPage]:
    """Opens pages that read Chinese first; whatever a page logs as an error fails the test."""
    # Rate limits count from none in each test; the real cache is shared with other workers.
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": secrets.token_hex(4),
        }
    }
    settings.SMS_SENDER = "tests.browser.sender.KeptSender"
    SENT.clear()
    complaints: list[str] = []
    contexts = []

    def open_page(viewport: ViewportSize) -> Page:
        context = chromium.new_context(
            base_url=live_server.url, viewport=viewport, locale="zh-CN", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def now() -> datetime:
    return clock.now()


@pytest.fixture
def subscriber(transactional_db: None, now: datetime) -> Subscriber:
    """A subscriber with a plan of ten million tokens, bought this month."""
    catalogue.load(now=now)
    return subscribing.sign_up(
        msisdn=NUMBER, plan_code="token-9.9", starts_at=now, actor="test", now=now, name="王小明"
    )
