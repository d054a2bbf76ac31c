"""VAT rates have a category and a first day; what invoices stand on is never changed."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from invoicing import taxes
from invoicing.models import TaxRate
from invoicing.refusals import MissingTaxRate, TaxesRefused

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("category", "day", "rate_bp"),
    [
        ("mobile_data", date(2025, 12, 31), 600),
        ("mobile_data", date(2026, 1, 1), 900),
        ("token_package", date(2026, 1, 1), 600),
        ("token_package", date(2030, 1, 1), 600),
    ],
)
def test_the_rate_depends_on_category_and_day(
    rates: None, category: str, day: date, rate_bp: int
) -> None:
    assert taxes.rate_bp(category=category, day=day) == rate_bp


@pytest.mark.parametrize(
    ("category", "day"), [("token_package", date(2025, 12, 31)), ("roaming", date(2026, 1, 1))]
)
def test_no_rate_is_guessed(rates: None, category: str, day: date) -> None:
    with pytest.raises(MissingTaxRate, match=str(day)):
        taxes.rate_bp(category=category, day=day)


def test_loading_again_adds_nothing_and_a_new_rate_ends_the_former(
    rates: None, tmp_path: Path
) -> None:
    assert taxes.load(now=NOW) == 0
    path = tmp_path / "taxes.yaml"
    path.write_text(
        taxes.TAXES_FILE.read_text(encoding="utf-8")
        + "- {category: token_package, rate_bp: 900, valid_from: 2027-01-01}\n",
        encoding="utf-8",
    )
    assert taxes.load(now=NOW, path=path) == 1
    assert taxes.rate_bp(category="token_package", day=date(2026, 12, 31)) == 600
    assert taxes.rate_bp(category="token_package", day=date(2027, 1, 1)) == 900


@pytest.mark.parametrize(
    "text",
    [
        "- {category: token_package, rate_bp: 700, valid_from: 2026-01-01}",  # another rate
        "- {category: token_package, rate_bp: 700, valid_from: 2025-01-01}",  # in the past
        "- {category: token_package, rate_bp: 7.5, valid_from: 2027-01-01}",  # not an integer
        "- {category: token_package, rate_bp: 700}",
        "token_package: 700",
    ],
)
def test_a_file_that_rewrites_the_past_or_cannot_be_read_is_refused_whole(
    rates: None, tmp_path: Path, text: str
) -> None:
    before = list(TaxRate.objects.order_by("id").values())
    path = tmp_path / "taxes.yaml"
    path.write_text(text)
    with pytest.raises(TaxesRefused):
        taxes.load(now=NOW, path=path)
    assert list(TaxRate.objects.order_by("id").values()) == before
