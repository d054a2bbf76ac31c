"""Loading the catalogue: idempotent, versions immutable, one load after the other."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from plans import catalogue
from plans.models import Plan, PlanVersion
from plans.refusals import CatalogueRefused, UnknownPlan
from usage.models import InferenceModel, Weight

from .conftest import NOON, at, close_connection
from .test_catalogue_file import MODEL, PACK, PLAN, file

pytestmark = pytest.mark.django_db
DEARER = PLAN.replace('"9.90"', '"10.90"')


def test_the_same_content_loaded_again_changes_nothing(shipped: catalogue.LoadResult) -> None:
    assert (shipped.new_versions, shipped.unchanged, shipped.models) == (10, 0, 4)
    again = catalogue.load(now=NOON)
    assert (again.new_versions, again.unchanged, again.off_sale, again.new_weights) == (0, 10, 0, 0)
    assert PlanVersion.objects.count() == 10
    assert Weight.objects.count() == 4


def test_weights_hold_from_the_first_instant_of_the_billing_zones_day(
    shipped: catalogue.LoadResult,
) -> None:
    weight = Weight.objects.get(model__code="deepseek-v3.2")
    assert weight.valid_from == at("2026-01-01 00:00")
    assert (weight.input_milli, weight.cached_milli, weight.output_milli) == (1000, 100, 1500)
    assert "deepseek-ai/DeepSeek-V3.2" in weight.model.aliases


def test_changed_terms_become_the_next_version_and_the_old_one_stays(tmp_path: Path) -> None:
    catalogue.load(path=file(tmp_path), now=NOON)
    result = catalogue.load(path=file(tmp_path, plan=DEARER), now=NOON + timedelta(days=1))
    assert (result.new_versions, result.unchanged) == (1, 1)
    versions = PlanVersion.objects.filter(plan__code="token-9.9").order_by("version")
    assert [(v.version, v.price_fen) for v in versions] == [(1, 990), (2, 1090)]
    assert catalogue.version_on_sale("token-9.9").version == 2


def test_a_removed_plan_goes_off_sale_and_comes_back_as_a_further_version(tmp_path: Path) -> None:
    catalogue.load(path=file(tmp_path), now=NOON)
    assert catalogue.load(path=file(tmp_path, plan=" []"), now=NOON).off_sale == 1
    assert catalogue.load(path=file(tmp_path, plan=" []"), now=NOON).off_sale == 0
    with pytest.raises(UnknownPlan):
        catalogue.version_on_sale("token-9.9")
    assert [v.plan.code for v in catalogue.on_sale()] == ["pack-1"]
    assert catalogue.load(path=file(tmp_path), now=NOON).new_versions == 1
    assert catalogue.version_on_sale("token-9.9").version == 3


def test_a_code_never_changes_from_plan_to_pack(tmp_path: Path) -> None:
    catalogue.load(path=file(tmp_path), now=NOON)
    turned = PACK.replace("pack-1", "token-9.9")
    with pytest.raises(CatalogueRefused, match="use another code"):
        catalogue.load(path=file(tmp_path, plan=" []", pack=turned), now=NOON)
    assert PlanVersion.objects.count() == 2


def test_a_refused_file_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong = file(tmp_path, model=MODEL.replace('"0.1"', '"0.0001"'))
    with pytest.raises(CatalogueRefused):
        catalogue.load(path=wrong, now=NOON)
    assert not Plan.objects.exists()
    assert not InferenceModel.objects.exists()


def test_a_version_is_restricted_to_the_models_it_names(tmp_path: Path) -> None:
    catalogue.load(path=file(tmp_path, plan=PLAN + "    models: [m]\n"), now=NOON)
    model = InferenceModel.objects.get(code="m")
    assert catalogue.model_ids_of(catalogue.version_on_sale("token-9.9")) == [model.pk]
    assert catalogue.model_ids_of(catalogue.version_on_sale("pack-1")) == []


def test_the_database_refuses_to_change_or_remove_a_version(
    shipped: catalogue.LoadResult,
) -> None:
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        PlanVersion.objects.update(price_fen=1)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        PlanVersion.objects.all().delete()


@pytest.mark.django_db(transaction=True)
def test_eight_loads_of_a_changed_file_at_once_make_one_version(tmp_path: Path) -> None:
    catalogue.load(path=file(tmp_path), now=NOON)
    # Without models in it, since their rows too would put the loads in line.
    changed = file(tmp_path, plan=DEARER, model=" []")

    def load(_: int) -> int:
        try:
            return catalogue.load(path=changed, now=NOON).new_versions
        finally:
            close_connection()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(load, range(8))) == [0] * 7 + [1]
    assert PlanVersion.objects.filter(plan__code="token-9.9").count() == 2


def test_the_command_loads_the_shipped_file_and_prints_counts() -> None:
    out = StringIO()
    call_command("load_catalogue", stdout=out)
    assert "10 new versions, 0 unchanged, 0 taken off sale; models: 4" in out.getvalue()


def test_the_command_refuses_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="token-9.9 is there twice"):
        call_command("load_catalogue", str(file(tmp_path, plan=PLAN + PLAN)))


def test_a_new_weight_ends_the_former_and_a_history_loads_again(tmp_path: Path) -> None:
    later = '      - {from: 2026-07-01, input: "3", cached: "1", output: "4", reasoning: "4"}\n'
    for created in (2, 0):
        result = catalogue.load(path=file(tmp_path, model=MODEL + later), now=NOON)
        assert result.new_weights == created
    first, second = Weight.objects.order_by("valid_from")
    assert first.valid_until == second.valid_from == at("2026-07-01 00:00")
