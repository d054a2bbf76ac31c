"""Where everything of one data folder lies. Computed, never searched: every process agrees."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

# The kernel allows 107 bytes for a socket's path; macOS 103.
LONGEST_SOCKET = 103
LONGEST_NAME = "/.s.PGSQL.5432"
LONGEST_LANE = "/0123456789ab/999.sock"


@dataclass(frozen=True)
class Layout:
    """The folders of one VAR_DIR.

    `postgres` holds PostgreSQL's data, `sockets` is the folder of its socket; `valkey` and
    `valkey_socket` likewise; web processes meet in `lanes`. `lease` and `start_lock` are lock
    files.
    """

    var: Path
    log: Path
    postgres: Path
    sockets: Path
    valkey: Path
    valkey_socket: Path
    lanes: Path
    lease: Path
    start_lock: Path


def of(var_dir: Path) -> Layout:
    """The layout of a data folder; creates nothing.

    As root PostgreSQL runs as another user, who must be able to reach its files: where the data
    folder lies behind a closed door (say under /root) they go to /var/tmp instead, and a link in
    the data folder says so. Socket paths have a length limit, so a deep folder's go to /tmp.
    """
    var = Path(os.path.realpath(var_dir))
    digest = hashlib.sha256(os.fsencode(var)).hexdigest()[:12]
    postgres = var / "postgres"
    if postgres.is_symlink():
        postgres = postgres.resolve()
    elif os.geteuid() == 0 and not reachable_by_all(var):
        postgres = Path(f"/var/tmp/tokenpack-{digest}")  # noqa: S108 (owner is checked on use)
    short = Path(f"/tmp/tokenpack-{os.geteuid()}-{digest}")  # noqa: S108 (owner is checked on use)
    sockets = _or_shorter(postgres / "run", short / "pg", LONGEST_NAME)
    run = _or_shorter(var / "run", short, LONGEST_NAME)
    lanes = _or_shorter(var / "lanes", short / "lanes", LONGEST_LANE)
    return Layout(
        var=var,
        log=var / "log",
        postgres=postgres,
        sockets=sockets,
        valkey=var / "valkey",
        valkey_socket=run / "valkey.sock",
        lanes=lanes,
        lease=var / "lease.lock",
        start_lock=var / "start.lock",
    )


def _or_shorter(folder: Path, short: Path, name: str) -> Path:
    return folder if len(os.fsencode(folder)) + len(name) <= LONGEST_SOCKET else short


def reachable_by_all(folder: Path) -> bool:
    """Whether any user may walk down to this folder (what does not exist yet is no obstacle)."""
    for step in [folder, *folder.parents]:
        if step.exists() and not step.stat().st_mode & stat.S_IXOTH:
            return False
    return True


def make_private(folder: Path, *, mode: int = 0o700) -> None:
    """Make a folder that belongs to us or to root; refuse one that somebody else put there."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    if folder.lstat().st_uid not in {0, os.geteuid()} or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to another user; remove it or move VAR_DIR")
