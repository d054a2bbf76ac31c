import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from config.local.supervisor import GaveUp, Program, Supervisor

FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)"
)
# The supervisor itself as a process, to be killed.
PARENT = """
import sys
from config.local.supervisor import Program, Supervisor
supervisor = Supervisor([Program("child", [sys.executable, "-c", "import time; time.sleep(600)"])])
supervisor.start()
print(supervisor.pid("child"), flush=True)
supervisor.wait()
"""


def program(name: str, code: str, *, log: Path | None = None) -> Program:
    return Program(name, [sys.executable, "-c", code], log=log)


def eventually(holds: Callable[[], bool], *, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with Supervisor([program("a", FOREVER, log=log)]) as supervisor:
        eventually(lambda: log.read_text() == "up\n")
        first = supervisor.pid("a")
        os.kill(first, signal.SIGKILL)
        eventually(
            lambda: supervisor._running.get("a") is not None and supervisor.pid("a") != first
        )
        second = supervisor.pid("a")
        eventually(lambda: log.read_text() == "up\nup\n")
    assert is_gone(second)


def test_all_stop_together_even_one_that_will_not(tmp_path: Path) -> None:
    log = tmp_path / "b.log"
    programs = [program("a", FOREVER), program("b", STUBBORN, log=log)]
    supervisor = Supervisor(programs, stop_seconds=0.5)
    supervisor.start()
    pids = [supervisor.pid("a"), supervisor.pid("b")]
    eventually(lambda: log.exists() and log.read_text() == "up\n")
    started = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - started < 5
    assert all(map(is_gone, pids))
    assert supervisor.wait()


def test_a_program_that_keeps_dying_ends_the_whole_with_its_name() -> None:
    programs = [program("steady", FOREVER), program("broken", "raise SystemExit(3)")]
    supervisor = Supervisor(programs, restarts=1)
    supervisor.start()
    steady = supervisor.pid("steady")
    with pytest.raises(GaveUp, match="broken ended with status 3"):
        supervisor.wait(seconds=30)
    assert is_gone(steady)


def test_a_program_that_does_not_exist_is_said_at_once() -> None:
    supervisor = Supervisor([Program("none", ["/nowhere/none"])])
    with pytest.raises(GaveUp, match="/nowhere/none"):
        supervisor.start()


def test_programs_end_with_a_supervisor_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    eventually(lambda: is_gone(child))
