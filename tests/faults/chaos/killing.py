"""The killer: SIGKILL to one process or another, at instants drawn from a seed."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil

from .system import System

# The supervisor gives up on a program that dies too often; real ones do not die that often.
MOST_DEATHS, WINDOW_SECONDS = 5, 100.0


class Killer:
    """Knows how to find one process of each kind, and kills it."""

    def __init__(self, system: System, *, seed: int) -> None:
        from config.local.servers import local_servers

        self.system = system
        # They make sure that the process is theirs: a dead one's number may be another's by now.
        self.servers = {server.name: server for server in local_servers().servers}
        self.dice = random.Random(f"{seed} killer")
        self.kills: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[], int | None]] = {
            "PostgreSQL backend": self._backend,
            "PostgreSQL postmaster": self._postmaster,
            "granian worker": lambda: self._child("web"),
            "granian main": lambda: self._main("web"),
            "Celery worker child": lambda: self._child("worker"),
            "Celery worker": lambda: self._main("worker"),
            "Valkey": lambda: self.servers["Valkey"]._owner(),
        }
        # Who is started again by the supervisor, under whose patience.
        self.patience = {
            "PostgreSQL postmaster": "PostgreSQL",
            "granian main": "web",
            "Celery worker": "worker",
            "Valkey": "Valkey",
        }
        self._deaths: dict[str, list[float]] = {}
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def kill(self, kind: str) -> bool:
        """Kill one process of a kind, if there is one just now."""
        with suppress(psutil.Error, ProcessLookupError, OSError, KeyError):
            pid = self.kinds[kind]()
            if pid is not None:
                psutil.Process(pid).send_signal(signal.SIGKILL)
                self.kills[kind] += 1
                return True
        return False

    def one_of_each(self, *, settle: Callable[[str], None]) -> None:
        """Each kind once, in an order of chance; `settle` is called with each."""
        left = list(self.kinds)
        self.dice.shuffle(left)
        while left:
            # One that is not there (a worker just killed has no children yet) waits its turn.
            kind = left.pop(0)
            if self.kill(kind):
                settle(kind)
            else:
                left.append(kind)
                self.system.supervisor.wait(seconds=0.1)

    def start(self) -> None:
        """Kill at random until `stop`."""
        self._thread = threading.Thread(target=self._go_on, name="killer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No further kill once this returns."""
        self._leave.set()
        if self._thread is not None:
            self._thread.join()

    def _go_on(self) -> None:
        while not self._leave.wait(self.dice.uniform(0.5, 4.0)):
            rare = [1 / (1 + self.kills[kind]) ** 2 for kind in self.kinds]
            [kind] = self.dice.choices(list(self.kinds), rare)
            if self._may_die(kind) and self.kill(kind):
                self._deaths.setdefault(kind, []).append(time.monotonic())

    def _may_die(self, kind: str) -> bool:
        since = time.monotonic() - WINDOW_SECONDS
        recent = [at for at in self._deaths.get(kind, []) if at > since]
        return kind not in self.patience or len(recent) < MOST_DEATHS

    def _main(self, name: str) -> int:
        return self.system.supervisor.pid(name)

    def _child(self, name: str) -> int | None:
        children = psutil.Process(self._main(name)).children()
        # Multiprocessing's own resource tracker is no worker.
        workers = [one for one in children if "resource_tracker" not in " ".join(one.cmdline())]
        return self.dice.choice(workers).pid if workers else None

    def _postmaster(self) -> int | None:
        return self.servers["PostgreSQL"]._owner()

    def _backend(self) -> int | None:
        """A client's backend: one that works, if there is one."""
        postmaster = self._postmaster()
        found = psutil.Process(postmaster).children() if postmaster else []
        backends = {one.pid: " ".join(one.cmdline()) for one in found}
        mine = [pid for pid, title in backends.items() if "[local]" in title]
        busy = [pid for pid in mine if not backends[pid].rstrip().endswith("idle")]
        return self.dice.choice(busy or mine) if mine else None
