"""The people of the usage tests."""

from tests.usage.conftest import (  # noqa: F401
    account,
    bare,
    models,
    month,
    node,
    node_and_token,
    subscriber,
)
