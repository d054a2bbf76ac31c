"""Runs a set of programs together: starts them, restarts one that dies, stops them all.

Also used by the demo. It looks after the embedded servers too, when it is given them.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from config.local.layout import make_private
from config.local.servers import LocalServers

LOOK_SECONDS = 0.5
STOP_SECONDS = 12  # then it is killed; what it did is safe, tasks come back to the queue
RESTARTS = 8  # within WINDOW_SECONDS; more is a fault that restarting does not mend
WINDOW_SECONDS = 120
FIRST_WAIT_SECONDS = 0.2
PR_SET_PDEATHSIG = 1
logger = structlog.get_logger(__name__)


class GaveUp(Exception):
    """A program or server kept dying; the message names it and where its last words are."""


@dataclass(frozen=True)
class Program:
    """One program: what to run, with which further variables, and where its output goes.

    `log` is a file that is appended to; None leaves the output on our own.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


class Supervisor:
    """Keeps programs (and embedded servers) running between start() and stop().

    `start` returns when all have been started once; `wait` blocks until stop() is called from
    elsewhere (a signal handler, another thread) and raises GaveUp when something keeps dying.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        servers: LocalServers | None = None,
        stop_seconds: float = STOP_SECONDS,
        restarts: int = RESTARTS,
    ) -> None:
        self.programs = list(programs)
        self.servers = servers
        self.stop_seconds = stop_seconds
        self.restarts = restarts
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._deaths: dict[str, list[float]] = {}
        self._not_before: dict[str, float] = {}
        self._leave = threading.Event()
        self._started = threading.Event()
        self._failure: GaveUp | None = None
        # Children are bound to the thread that made them (see _die_with_parent), so one thread
        # makes them all and lives as long as they do.
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start everything; errors: GaveUp when a program cannot even be started."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def request_stop(self) -> None:
        """Ask for the end without waiting; safe in a signal handler."""
        self._leave.set()

    def stop(self) -> None:
        """Stop everything at once and wait until it is gone; may be called twice."""
        self._leave.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, *, seconds: float | None = None) -> bool:
        """Wait for the end; True when it came, False when `seconds` passed before."""
        until = None if seconds is None else time.monotonic() + seconds
        # In slices, so that signal handlers of the main thread get their turn.
        while self._thread.is_alive():
            if until is not None and time.monotonic() >= until:
                return False
            self._thread.join(0.2)
        if self._failure is not None:
            raise self._failure
        return True

    def pid(self, name: str) -> int:
        """The process id of a program as it runs now; KeyError when it does not."""
        return self._running[name].pid

    def _watch(self) -> None:
        try:
            for program in self.programs:
                self._launch(program)
            self._started.set()
            while not self._leave.wait(LOOK_SECONDS):
                self._look_after_servers()
                for program in self.programs:
                    self._look_after(program)
        except GaveUp as failure:
            self._failure = failure
        except Exception as error:  # anything else must end the whole as well, and say why
            self._failure = GaveUp(f"{type(error).__name__}: {error}")
        finally:
            self._stop_all()
            self._started.set()

    def _launch(self, program: Program) -> None:
        if program.log is not None:
            make_private(program.log.parent, mode=0o755)
        output = program.log.open("ab") if program.log is not None else None
        try:
            self._running[program.name] = subprocess.Popen(
                program.command,
                env={**os.environ, **program.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C reaches us alone; we tell the programs, in our order.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        finally:
            if output is not None:
                output.close()

    def _look_after(self, program: Program) -> None:
        process = self._running.get(program.name)
        if process is not None:
            status = process.poll()
            if status is None:
                return
            # A main process killed with -9 leaves workers that would hold its port and tasks.
            _signal_group(process, signal.SIGKILL)
            del self._running[program.name]
            where = f"; its output is in {program.log}" if program.log else ""
            self._note_death(program.name, f"ended with status {status}{where}")
        if time.monotonic() >= self._not_before.get(program.name, 0):
            self._launch(program)

    def _look_after_servers(self) -> None:
        if self.servers is None:
            return
        restarted = self.servers.ensure_up()
        for name in restarted:
            self._note_death(name, f"was down; its log is in {self.servers.layout.log}")

    def _note_death(self, name: str, how: str) -> None:
        now = time.monotonic()
        recent = [at for at in self._deaths.get(name, []) if at > now - WINDOW_SECONDS]
        self._deaths[name] = [*recent, now]
        if len(recent) >= self.restarts:
            raise GaveUp(f"{name} {how}; {len(recent)} restarts did not help, so all is stopped")
        wait = FIRST_WAIT_SECONDS * 2 ** len(recent)
        self._not_before[name] = now + wait
        logger.warning("restarting", program=name, reason=how, in_seconds=wait)

    def _stop_all(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + self.stop_seconds
        for process in self._running.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def on_stop_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGINT and SIGTERM, however often they come.

    One Ctrl-C often comes twice (from the terminal and from make); stopping has its own time limit,
    so nobody needs a second one to be harsher.
    """

    def handle(number: int, frame: object) -> None:
        stop()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def _die_with_parent() -> None:
    """Runs in the child: the kernel sends it SIGTERM should we be killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
