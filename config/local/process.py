"""What the two embedded servers share: starting a process that outlives us, and its last words."""

import atexit
import subprocess
from pathlib import Path
from typing import Any

# Kept for good: a server may well outlive the object that started it, and is then not ours to end.
_started: list["subprocess.Popen[bytes]"] = []


@atexit.register
def _disown() -> None:
    """At the end Python would warn of servers that run on; that they do is the point."""
    for process in _started:
        if process.poll() is None:
            process.returncode = 0


class ServerFailed(Exception):
    """An embedded server does not come up; the message holds the end of its log."""


def start_detached(
    command: list[str], *, log: Path, folder: Path, **who: Any
) -> "subprocess.Popen[bytes]":
    """Start a server in a session of its own, its output appended to `log`.

    Ctrl-C in a terminal is then for us alone; we stop the server in our order. `who` says which
    user it runs as, in the words of subprocess.
    """
    _started[:] = [process for process in _started if process.poll() is None]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
            **who,
        )
    _started.append(process)
    return process


def tail(log: Path) -> str:
    """The last lines of a log, empty when there is none."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
