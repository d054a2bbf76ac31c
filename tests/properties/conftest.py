"""One small carrier for all properties: three people, a pool, two models, one node."""

import pytest

from accounts.models import Account
from tests.usage.conftest import BORN, account, make_subscriber, models, node, node_and_token
from usage import pools
from usage.models import InferenceModel, Node

from .world import World

__all__ = ["account", "models", "node", "node_and_token"]


@pytest.fixture
def world(account: Account, models: dict[str, InferenceModel], node: Node) -> World:
    people = [make_subscriber(account, f"+861390000000{number}") for number in (1, 2, 3)]
    pool = pools.create_pool(account_id=account.pk, name="home", kind="family", now=BORN)
    return World(node, people, pool, models)
