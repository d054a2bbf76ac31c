"""The product's own web server on a database of the benchmarks, on a free port."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

from django.conf import settings

from config.local.programs import all_programs

START_SECONDS = 60


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(database: str) -> Iterator[tuple[int, int]]:
    """Serve the API from `database` with the program's own command line; yields (port, pid)."""
    settings.PORT = port = free_port()
    program = next(one for one in all_programs() if one.name == "web")
    log = settings.LAYOUT.log / "bench-web.log"
    log.parent.mkdir(parents=True, exist_ok=True)

    environment = {**os.environ, **program.environment}
    environment |= {"BENCH_DATABASE": database, "LOG_LEVEL": "WARNING", "PORT": str(port)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            program.command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(process, port)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{sys.executable} -m granian does not serve; see bench-web.log")
