"""FreeRADIUS 3 as Debian ships it, writing accounting-stops into a database of the same PostgreSQL.

Its own queries and schema, its own thread and connection pools; the only change is where the
database is. It keeps no balance: one UPDATE that finds nothing, then one INSERT, each a commit.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from tests.bench import world
from tests.bench.figures import Skipped

PROGRAM = "freeradius"
INSTALL = "apt-get install freeradius freeradius-postgresql (Debian or Ubuntu, as root)"
DATABASE = "bench_radius"
SECRET = "bench-only"
DEBIAN = Path("/etc/freeradius/3.0")
QUERIES = DEBIAN / "mods-config/sql/main/postgresql"

CONFIGURATION = """
prefix = /usr
libdir = {libdir}
raddbdir = {debian}
run_dir = {folder}
logdir = {folder}
pidfile = {folder}/freeradius.pid
modconfdir = {debian}/mods-config
hostname_lookups = no
max_request_time = 30
cleanup_delay = 5
max_requests = 16384
log {{ destination = files
  file = {folder}/radius.log }}
security {{ max_attributes = 200
  reject_delay = 0
  status_server = no }}
thread pool {{ start_servers = 5
  max_servers = 32
  min_spare_servers = 3
  max_spare_servers = 10
  max_requests_per_server = 0 }}
client local {{ ipaddr = 127.0.0.1
  secret = {secret} }}
modules {{
  sql {{
    dialect = "postgresql"
    driver = "rlm_sql_postgresql"
    postgresql {{ send_application_name = yes }}
    radius_db = "host={sockets} port=5432 user=tokenpack dbname={database}"
    acct_table1 = "radacct"
    acct_table2 = "radacct"
    postauth_table = "radpostauth"
    authcheck_table = "radcheck"
    groupcheck_table = "radgroupcheck"
    authreply_table = "radreply"
    groupreply_table = "radgroupreply"
    usergroup_table = "radusergroup"
    delete_stale_sessions = yes
    pool {{ start = 5
      min = 3
      max = 32
      spare = 10
      uses = 0
      lifetime = 0
      idle_timeout = 60 }}
    client_table = "nas"
    group_attribute = "SQL-Group"
    $INCLUDE ${{modconfdir}}/sql/main/${{dialect}}/queries.conf
  }}
  expr {{
  }}
}}
policy {{
  $INCLUDE {debian}/policy.d/accounting
}}
server bench {{
  listen {{ type = acct
    ipaddr = 127.0.0.1
    port = {port} }}
  preacct {{
    acct_unique
  }}
  accounting {{
    sql
  }}
}}
"""


@contextmanager
def serving(port: int) -> Iterator[None]:
    """Run it on a UDP port; Skipped when it is not installed."""
    program = shutil.which(PROGRAM) or shutil.which("radiusd")
    libraries = next(Path("/usr/lib").glob("**/rlm_sql_postgresql.so"), None)
    if program is None or libraries is None or not QUERIES.exists():
        raise Skipped(f"FreeRADIUS 3 with PostgreSQL is not installed: {INSTALL}")
    with world.connect("postgres") as admin:
        world.drop(DATABASE)
        admin.execute(f"CREATE DATABASE {DATABASE}")
    with world.connect(DATABASE) as connection:
        connection.execute((QUERIES / "schema.sql").read_bytes())
    folder = settings.LAYOUT.var / "freeradius"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    text = CONFIGURATION.format(
        libdir=libraries.parent, debian=DEBIAN, folder=folder, secret=SECRET, port=port,
        sockets=settings.LAYOUT.sockets, database=DATABASE,
    )  # fmt: skip
    (folder / "radiusd.conf").write_text(text)
    (folder / "radiusd.conf").chmod(0o600)
    with (folder / "out.log").open("wb") as output:
        process = subprocess.Popen([program, "-f", "-d", str(folder)], stdout=output, stderr=output)
    try:
        _wait(process, folder)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        world.drop(DATABASE)


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    log = folder / "radius.log"
    for _ in range(100):
        if log.exists() and "Ready to process requests" in log.read_text(errors="replace"):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    said = "".join(one.read_text(errors="replace")[-1500:] for one in folder.glob("*.log"))
    raise RuntimeError(f"FreeRADIUS does not start: {said}")
