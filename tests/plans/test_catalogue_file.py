"""A catalogue file is refused whole, with the entry and what to do, or taken exactly."""

from pathlib import Path

import pytest

from plans import catalogue
from plans.catalogue_file import fen, milli, read
from plans.refusals import CatalogueRefused

PLAN = """
  - code: token-9.9
    name: 词元
    name_en: Tokens
    audience: personal
    price: "9.90"
    tokens: 10_000_000
    beyond: stop
    tax_category: token_package
"""
PACK = """
  - code: pack-1
    name: 包
    name_en: Pack
    audience: personal
    price: "1.00"
    tokens: 5
    validity_days: 31
    tax_category: token_package
"""
MODEL = """
  - code: m
    name: M
    aliases: [org/M]
    weights:
      - {from: 2026-01-01, input: "1", cached: "0.1", output: "2", reasoning: "2"}
"""


def file(folder: Path, *, plan: str = PLAN, pack: str = PACK, model: str = MODEL) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(f"plans:{plan}\npacks:{pack}\nmodels:{model}\n", encoding="utf-8")
    return path


def test_the_shipped_file_has_the_ladders_that_carriers_sell() -> None:
    content = read(catalogue.SHIPPED)
    sold = {e.code: (fen(e.price), e.tokens) for e in (*content.plans, *content.packs)}
    assert sold == {
        "token-9.9": (990, 10_000_000),
        "token-29.9": (2990, 40_000_000),
        "token-49.9": (4990, 80_000_000),
        "family-59.9": (5990, 100_000_000),
        "dev-39.9": (3990, 15_000_000),
        "dev-159.9": (15990, 70_000_000),
        "dev-299.9": (29990, 150_000_000),
        "payg-4": (0, 0),
        "pack-250k": (100, 250_000),
        "pack-400k": (100, 400_000),
    }
    assert [plan.code for plan in content.plans if plan.pool != "none"] == ["family-59.9"]
    assert {e.code for e in content.models} >= {"telechat", "deepseek-v3.2", "glm-5"}
    x10 = next(e for e in content.models if e.code == "telechat-x10").weights[0]
    assert {milli(t) for t in (x10.input, x10.cached, x10.output, x10.reasoning)} == {10_000}


@pytest.mark.parametrize(("text", "amount"), [("0", 0), ("9.9", 990), ("9.90", 990), ("1", 100)])
def test_prices_become_fen_exactly(text: str, amount: int) -> None:
    assert fen(text) == amount


@pytest.mark.parametrize("text", ["9.905", "-1", "1e3", "NaN", "", " 1", "1,00", "01", "９.9"])
def test_a_price_that_is_no_whole_fen_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a price"):
        fen(text)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (PLAN.replace('"9.90"', "9.90"), r"plans\[0\] \(token-9.9\).*\$\.price.*in quotes"),
        (PLAN.replace("10_000_000", "1.5"), r"plans\[0\] \(token-9.9\).*\$\.tokens"),
        (PLAN.replace('"9.90"', '"9.905"'), r"token-9.9: '9.905' is not a price"),
        (PLAN.replace("beyond: stop", "beyond: payg"), "needs payg_price_per_million"),
        (PLAN.replace("10_000_000", "0"), "a plan without tokens"),
        (PLAN + "    colour: red\n", "unknown field `colour`"),
        (PLAN.replace("    name: 词元\n", ""), "missing required field `name`"),
        (PLAN + "    price: '5'\n", "price is given twice"),
        (PLAN + PLAN, "token-9.9 is there twice"),
        (PLAN + "    models: [nowhere]\n", r"models \['nowhere'\] are not in this file"),
        (PLAN + "    payg_price_per_million: '4'\n", "without beyond: payg"),
        (" 3", "plans: must be a list"),
        (" [", "cannot be read"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_place_and_reason(
    tmp_path: Path, plan: str, told: str
) -> None:
    with pytest.raises(CatalogueRefused, match=told):
        read(file(tmp_path, plan=plan))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (MODEL.replace('"0.1"', '"0.0001"'), "m: '0.0001' is not a weight"),
        (MODEL.replace("org/M", "m2") + MODEL.replace("code: m", "code: m2"), "m2 is there twice"),
        (MODEL.replace("2026-01-01", "soon"), r"models\[0\] \(m\)"),
    ],
)
def test_a_wrong_model_is_refused(tmp_path: Path, model: str, told: str) -> None:
    with pytest.raises(CatalogueRefused, match=told):
        read(file(tmp_path, model=model))


def test_a_missing_file_or_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueRefused, match="cannot be read"):
        read(tmp_path / "none.yaml")
    path = tmp_path / "catalogue.yaml"
    path.write_text("plans: []\n", encoding="utf-8")
    with pytest.raises(CatalogueRefused, match="exactly the sections"):
        read(path)
