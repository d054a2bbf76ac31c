"""Real servers for every test: PostgreSQL and Valkey are up before the first one asks."""

from collections.abc import Iterator

import pytest

from config.local.servers import LocalServers, local_servers


@pytest.fixture(scope="session")
def running_servers() -> Iterator[LocalServers]:
    """Each worker holds a lease on the same servers; the last one to leave stops them."""
    with local_servers() as servers:
        yield servers


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    running_servers: LocalServers, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """pytest-django asks for this first of all, so the servers are up when it makes databases."""
