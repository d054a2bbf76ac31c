"""Eight processes that do everything at once to the same few subscribers; made for one test.

Started as `python -m tests.faults.stress_processes DATABASE`; reads a `Plan` as JSON and prints the
`Report`s, one a process. The processes are forked, so that starting Django is paid for once.
"""

import json
import multiprocessing
import sys
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """Whom the processes meet, and for how long; `months` are the plan buckets.

    `least_actions` of a process may take two and a half times as long.
    """

    seed: int
    processes: int
    seconds: float
    least_actions: int
    node_id: int
    subscribers: list[int]
    pools: list[int]
    months: list[int]
    caps_mt: dict[int, int]  # by the place of a subscriber; others have none


@dataclass
class Report:
    """What one process was told: the proof is held against it."""

    process: int
    acknowledged: list[str] = field(default_factory=list)
    granted_mt: dict[str, int] = field(default_factory=dict)
    adjusted_mt: dict[str, int] = field(default_factory=dict)
    corrected: dict[str, str] = field(default_factory=dict)  # key: id of the event
    answers: dict[str, str] = field(default_factory=dict)  # session and sequence: what was told
    remembered: int = 0  # how often what it remembered was looked at, and true
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


def _act(arguments: tuple[Plan, int]) -> Report:
    from tests.faults.stress_client import Client

    return Client(*arguments).run()


def main() -> None:
    """Fork the processes, let them act, and print what each was told."""
    import django
    from django.conf import settings

    settings.DATABASES["default"]["NAME"] = sys.argv[1]
    django.setup()
    import tests.faults.stress_client  # noqa: F401 (once for all that are forked)

    told = json.load(sys.stdin)
    told["caps_mt"] = {int(place): mt for place, mt in told["caps_mt"].items()}
    plan = Plan(**told)
    with multiprocessing.get_context("fork").Pool(plan.processes) as pool:
        turns = [(plan, index) for index in range(plan.processes)]
        reports = [pool.apply_async(_act, (turn,)) for turn in turns]
        json.dump([vars(one.get(timeout=120)) for one in reports], sys.stdout)


if __name__ == "__main__":
    main()
