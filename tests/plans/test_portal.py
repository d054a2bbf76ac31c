"""Plans in the portal: what is held, what is on sale, and taking one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import time_machine
from django.test import Client

from accounts.models import Subscriber
from plans import catalogue
from plans.catalogue import LoadResult
from plans.models import Charge, Subscription
from tests.plans.conftest import NOON, at
from tests.plans.test_catalogue_file import PACK, PLAN, file


@pytest.fixture
def portal(subscriber: Subscriber, shipped: LoadResult) -> Iterator[Client]:
    assert subscriber.user is not None
    client = Client(headers={"accept-language": "en"})
    with time_machine.travel(NOON, tick=False):
        client.force_login(subscriber.user)
        yield client


def test_everything_on_sale_is_shown_with_its_price(portal: Client) -> None:
    page = portal.get("/plans/").content.decode()
    for text in ("¥9.90", "¥299.90", "10 M", "250 K", "You have no plan"):
        assert text in page


def test_a_plan_taken_today_is_charged_for_the_rest_of_the_month(
    portal: Client, subscriber: Subscriber
) -> None:
    offered = portal.get("/plans/token-9.9/").content.decode()
    portal.post("/plans/token-9.9/", {"start": "now"})
    charge = Charge.objects.get(subscriber=subscriber)
    assert f"¥{charge.amount_fen // 100}.{charge.amount_fen % 100:02} for 7 of 30 days" in offered
    assert "Token Plan 9.9" in portal.get("/plans/").content.decode()


def test_a_plan_taken_for_next_month_begins_on_its_first_instant(
    portal: Client, subscriber: Subscriber
) -> None:
    portal.post("/plans/token-9.9/", {"start": "next"})
    assert Subscription.objects.get().starts_at == at("2026-12-01 00:00")
    assert not Charge.objects.exists()


def test_a_second_plan_is_refused_with_a_sentence(portal: Client) -> None:
    portal.post("/plans/token-9.9/", {"start": "now"})
    answer = portal.post("/plans/token-29.9/", {"start": "now"}, follow=True)
    assert "You hold a plan already." in answer.content.decode()
    assert Subscription.objects.count() == 1


@pytest.mark.parametrize("code", ["pack-250k", "no-such-plan"])
def test_what_is_no_plan_is_not_found(portal: Client, code: str) -> None:
    assert portal.get(f"/plans/{code}/").status_code == 404
    assert portal.post(f"/plans/{code}/").status_code == 404


def test_a_family_plan_says_that_it_is_shared_and_as_what(
    portal: Client, subscriber: Subscriber
) -> None:
    assert "for a pool that several numbers share" in portal.get("/plans/").content.decode()
    assert "You are its first member" in portal.get("/plans/family-59.9/").content.decode()
    portal.post("/plans/family-59.9/", {"start": "now"})
    assert "shared as Wang" in portal.get("/plans/").content.decode()
    home = portal.get("/").content.decode()
    assert 'id="pool-left" data-mt="23333333000"' in home


def test_hours_models_and_rollover_are_told_before_the_purchase(
    portal: Client, tmp_path: Path
) -> None:
    terms = '    hours: "22:00-08:00"\n    models: [m]\n'
    plan = PLAN + terms + "    rollover: {percent: 50, cap_tokens: 2000}\n"
    pack = PACK + terms
    catalogue.load(path=file(tmp_path, plan=plan, pack=pack), now=NOON)
    for page, times in (("/plans/", 2), ("/plans/token-9.9/", 1), ("/packs/pack-1/", 1)):
        text = portal.get(page).content.decode()
        assert text.count("pays only at 22:00–08:00") == times
        assert text.count("only for m<") == times
        rolls = "50 % of what is left, at most 2,000, stays good for the next month"
        assert (rolls in text) == (page != "/packs/pack-1/")
    catalogue.load(path=file(tmp_path, plan=PLAN + "    rollover: all\n"), now=NOON)
    text = portal.get("/plans/token-9.9/").content.decode()
    assert "what is left stays good for the next month" in text
    assert "pays only" not in text


def test_packs_for_a_pool_are_shown_to_who_has_one(
    portal: Client, subscriber: Subscriber, tmp_path: Path
) -> None:
    plan, pack = PLAN + "    pool: family\n", PACK + "    pool: family\n"
    catalogue.load(path=file(tmp_path, plan=plan, pack=pack), now=NOON)
    for page in ("/", "/plans/"):
        assert "/packs/pack-1/" not in portal.get(page).content.decode()
    portal.post("/plans/token-9.9/", {"start": "now"})
    for page in ("/", "/plans/"):
        assert "/packs/pack-1/" in portal.get(page).content.decode()
