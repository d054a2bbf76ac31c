"""Two processes share the servers of one data folder; a killed server comes back with its data."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from config.local import layout
from config.local.servers import LocalServers

# A second process that takes a lease, says so, and gives it back when told to.
NEIGHBOUR = """
import sys
from pathlib import Path
from config.local import layout
from config.local.servers import LocalServers
with LocalServers(layout.of(Path(sys.argv[1]))):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def open_folder() -> Iterator[Path]:
    """Unlike pytest's own, one that the user whom PostgreSQL runs as under root can reach."""
    with tempfile.TemporaryDirectory(prefix="tokenpack-test-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made) / "var"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture
def servers(folder: Path) -> Iterator[LocalServers]:
    with LocalServers(layout.of(folder)) as running:
        yield running


def ask(servers: LocalServers, statement: str) -> object:
    host = str(servers.layout.sockets)
    with psycopg.connect(host=host, user="tokenpack", dbname="tokenpack") as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def is_up(servers: LocalServers) -> list[bool]:
    return [server.is_up() for server in servers.servers]


def start_neighbour(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", NEIGHBOUR, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_commit_is_on_disk_before_it_is_acknowledged(servers: LocalServers) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert ask(servers, f"SELECT current_setting('{setting}')") == "on"


@pytest.mark.skipif(sys.platform != "linux", reason="syncfs is Linux's")
def test_recovery_does_not_open_every_file_before_it_begins(servers: LocalServers) -> None:
    assert ask(servers, "SELECT current_setting('recovery_init_sync_method')") == "syncfs"


def test_the_servers_listen_to_this_machine_only(servers: LocalServers) -> None:
    assert ask(servers, "SELECT current_setting('listen_addresses')") == ""
    with socket.socket(socket.AF_UNIX) as valkey:
        valkey.connect(str(servers.layout.valkey_socket))
        valkey.sendall(b"CONFIG GET maxmemory-policy\r\nCONFIG GET port\r\n")
        answer = valkey.recv(1000).decode()
    assert "noeviction" in answer
    assert answer.rstrip().endswith("\r\n0")


def test_the_last_of_two_processes_stops_the_servers(folder: Path) -> None:
    mine = LocalServers(layout.of(folder))
    mine.acquire()
    neighbour = start_neighbour(folder)
    mine.release()
    assert is_up(mine) == [True, True]
    neighbour.communicate("leave\n", timeout=30)
    assert is_up(mine) == [False, False]


def test_a_killed_neighbour_leaves_no_claim_behind(folder: Path) -> None:
    mine = LocalServers(layout.of(folder))
    neighbour = start_neighbour(folder)
    mine.acquire()
    neighbour.kill()
    neighbour.communicate()
    assert is_up(mine) == [True, True]
    mine.release()
    assert is_up(mine) == [False, False]


def test_each_taking_within_a_process_needs_its_release(folder: Path) -> None:
    mine = LocalServers(layout.of(folder))
    mine.acquire()
    mine.acquire()
    mine.release()
    assert is_up(mine) == [True, True]
    mine.release()
    assert is_up(mine) == [False, False]


def test_a_killed_server_is_started_again_with_every_commit(servers: LocalServers) -> None:
    ask(servers, "CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS n")
    for server in servers.servers:
        pid = server._owner()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        server.wait_until_down(seconds=10)
    assert servers.ensure_up() == ["PostgreSQL", "Valkey"]
    assert ask(servers, "SELECT n FROM kept") == 7
    assert servers.ensure_up() == []


def test_two_folders_do_not_disturb_each_other(servers: LocalServers) -> None:
    with open_folder() as other_folder, LocalServers(layout.of(other_folder)) as other:
        assert is_up(other) == is_up(servers) == [True, True]
    assert is_up(servers) == [True, True]


def test_behind_a_closed_door_the_data_lies_where_the_servers_user_can_go(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    closed = layout.of(tmp_path / "var")
    if os.geteuid() == 0:
        assert closed.postgres.parent == Path("/var/tmp")
    else:
        assert closed.postgres == tmp_path / "var" / "postgres"


def test_a_long_path_gets_short_sockets() -> None:
    deep = Path("/tmp") / ("d" * 60) / ("e" * 60) / "var"
    short = layout.of(deep)
    for path in (
        short.sockets / ".s.PGSQL.5432",
        short.valkey_socket,
        short.lanes / "0123456789ab" / "7.sock",
    ):
        assert len(str(path)) <= 103


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(PermissionError):
        layout.make_private(link)
