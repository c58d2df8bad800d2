"""The option `--torture`, the process that forks runs, and a folder for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer
from torture import Folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--torture",
        choices=("quick", "all"),
        default="quick",
        help="how many points tests/torture disturbs: some of each scenario, or all",
    )


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path, fork_server: ForkServer) -> Iterator[Folder]:
    """In memory where there is such a place: a killed process loses nothing there that it would keep on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield Folder(tmp_path / "at", fork_server)
        return
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as made:
        yield Folder(Path(made) / "at", fork_server)


@pytest.fixture
def points(request: pytest.FixtureRequest) -> str:
    """`quick` or `all`."""
    return str(request.config.getoption("--torture"))
