import pytest

from config.celery import app
from config.schedule import BEAT_SCHEDULE


@pytest.mark.parametrize("name", sorted(BEAT_SCHEDULE))
def test_an_entry_names_a_task_that_exists(name: str) -> None:
    app.loader.import_default_modules()
    assert BEAT_SCHEDULE[name]["task"] in app.tasks


def test_the_timetable_is_written_in_the_billing_zone() -> None:
    assert str(app.conf.timezone) == "Asia/Shanghai"
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost


def test_rounds_of_callbacks_do_not_pile_up() -> None:
    """Nodes that do not answer make rounds longer than the time between two: one that waited
    until the next is due is dropped, else workers would come to nothing else."""
    entry = BEAT_SCHEDULE["deliver-callbacks"]
    assert entry["options"]["expires"] == entry["schedule"]
