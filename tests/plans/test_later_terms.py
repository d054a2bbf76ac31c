"""Rollover, hours, the end of a session and pool-first reach the engine as the plan says them."""

from pathlib import Path

import pytest

from accounts.models import Subscriber
from plans import catalogue, ordering, subscribing
from plans.catalogue_file import MOST_TOKENS
from plans.models import PlanVersion
from plans.refusals import CatalogueRefused
from usage import ledger
from usage.models import Bucket, ChargingProfile

from .conftest import NOON, at
from .test_catalogue_file import PACK, PLAN, file

ROLLS = "    rollover: {percent: 50, cap_tokens: 1000}\n"


def load(folder: Path, *, plan: str = PLAN, pack: str = PACK) -> None:
    catalogue.load(path=file(folder, plan=plan, pack=pack), now=at("2026-01-01 00:00"))


def test_a_plan_says_what_its_months_roll_over(tmp_path: Path, subscriber: Subscriber) -> None:
    load(tmp_path, plan=PLAN + ROLLS + "    pool_first: true\n")
    subscribing.subscribe(
        subscriber_id=subscriber.pk, plan_code="token-9.9", starts_at=NOON, actor="c", now=NOON
    )
    bucket = Bucket.objects.get()
    assert (bucket.rollover_percent, bucket.rollover_cap_mt) == (50, 1_000_000)
    assert ChargingProfile.objects.get().pool_first
    ledger.close_due_buckets(now=at("2026-12-01 01:00"))
    assert Bucket.objects.get(kind="rollover").remaining_mt == 1_000_000


def test_a_session_ends_as_the_plan_says(tmp_path: Path, subscriber: Subscriber) -> None:
    load(tmp_path, plan=PLAN + "    final_action: restrict\n    free_model: m\n")
    subscribing.subscribe(
        subscriber_id=subscriber.pk, plan_code="token-9.9", starts_at=NOON, actor="c", now=NOON
    )
    profile = ChargingProfile.objects.get()
    assert (profile.final_action, profile.free_model) == ("RESTRICT", "m")


def test_a_night_pack_pays_at_night(tmp_path: Path, subscriber: Subscriber) -> None:
    load(tmp_path, pack=PACK + '    hours: "22:00-08:00"\n')
    ordering.place_order(
        subscriber_id=subscriber.pk, plan_code="pack-1", pay="bill", key="k", now=NOON
    )
    bucket = Bucket.objects.get()
    assert (bucket.minute_from, bucket.minute_until) == (1320, 480)


def test_all_is_a_whole_share_without_a_cap_that_bites(tmp_path: Path, db: None) -> None:
    load(tmp_path, plan=PLAN + "    rollover: all\n")
    version = PlanVersion.objects.get(plan__code="token-9.9")
    assert (version.rollover_percent, version.rollover_cap_tokens) == (100, MOST_TOKENS)


def test_terms_that_are_the_usual_ones_make_no_new_version(tmp_path: Path, db: None) -> None:
    load(tmp_path)
    usual = '    rollover: none\n    final_action: redirect\n    hours: "00:00-24:00"\n'
    load(tmp_path, plan=PLAN + usual)
    assert PlanVersion.objects.filter(plan__code="token-9.9").count() == 1


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ("    rollover: {percent: 101}\n", "percent"),
        ("    rollover: some\n", "rollover"),
        ('    hours: "8-22"\n', "hours"),
        ('    hours: "08:00-08:00"\n', "begin where they end"),
        ('    hours: "24:00-08:00"\n', "hours"),
        ("    final_action: restrict\n", "go together"),
        ("    free_model: m\n", "go together"),
        ("    final_action: restrict\n    free_model: x\n", "is not in this file"),
    ],
)
def test_terms_that_cannot_be_meant_are_refused(
    tmp_path: Path, db: None, terms: str, told: str
) -> None:
    with pytest.raises(CatalogueRefused, match=told):
        load(tmp_path, plan=PLAN + terms)
