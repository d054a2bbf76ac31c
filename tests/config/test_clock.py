from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from config import clock


@pytest.fixture
def clock_file(tmp_path: Path, settings: Settings) -> Path:
    settings.CLOCK_FILE = str(tmp_path / "clock")
    settings.EMBEDDED_POSTGRES = True
    return tmp_path / "clock"


def distance(offset: timedelta) -> timedelta:
    return abs(clock.now() - datetime.now(UTC) - offset)


def test_without_a_clock_file_it_is_the_wall_clock() -> None:
    assert distance(timedelta(0)) < timedelta(seconds=1)
    assert clock.now().tzinfo is UTC


def test_a_missing_clock_file_moves_nothing(clock_file: Path) -> None:
    assert distance(timedelta(0)) < timedelta(seconds=1)


def test_the_clock_follows_every_move_at_once(clock_file: Path) -> None:
    for days in (-30, 12, -1, 0):
        clock.set_offset(timedelta(days=days))
        assert distance(timedelta(days=days)) < timedelta(seconds=1)


def test_moving_needs_a_clock_file(settings: Settings) -> None:
    settings.CLOCK_FILE = ""
    with pytest.raises(ImproperlyConfigured):
        clock.set_offset(timedelta(days=1))


def test_on_a_real_database_the_clock_does_not_move(clock_file: Path, settings: Settings) -> None:
    clock.set_offset(timedelta(days=1))
    settings.EMBEDDED_POSTGRES = settings.DEBUG = False
    with pytest.raises(ImproperlyConfigured):
        clock.now()
