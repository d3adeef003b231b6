"""Servers that a session of tests starts once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # with importlib's import mode pytest adds no folder


@pytest.fixture(scope="session")
def database():
    """The URL of a database on a PostgreSQL server of the tests' own."""
    from servers import postgres

    with postgres("fsync=off") as url:
        yield url


@pytest.fixture(scope="session")
def proxy(database):
    """The URL of a gRPC proxy in front of that database."""
    from servers import grpc_proxy

    with grpc_proxy(database) as url:
        yield url
