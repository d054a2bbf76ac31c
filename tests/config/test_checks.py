import pytest
from django.core.checks import run_checks
from pytest_django import Settings


@pytest.mark.parametrize(("address", "warnings"), [("redis://valkey:6379/1", []), ("", ["W1"])])
def test_limits_that_no_cache_shares_are_warned_of(
    settings: Settings, address: str, warnings: list[str]
) -> None:
    settings.CACHE_URL = address
    found = [message.id for message in run_checks(tags=["caches"])]
    assert found == [f"tokenpack.{name}" for name in warnings]
