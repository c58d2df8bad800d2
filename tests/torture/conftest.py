"""The option `--torture`, the process that forks runs, and a folder for each test."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer
from hostile_server import Site, hostile_server
from torture import Folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--torture",
        choices=("quick", "all"),
        default="quick",
        help="how many points tests/torture disturbs: some of each scenario, or all",
    )


TALLY: Counter[str] = Counter()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.section("torture")
        terminalreporter.write_line(", ".join(f"{kind} {count:,}" for kind, count in sorted(TALLY.items())))


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    TALLY.update(server.tally, scenarios=len(server.prepared))
    server.close()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with hostile_server() as running:
        yield running


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer, site: Site) -> Iterator[Folder]:
    """In memory where there is such a place: a killed process loses nothing there that it would keep on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield Folder(tmp_path_factory.mktemp("torture"), fork_server, site.url)
        return
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory) as made:
        yield Folder(Path(made), fork_server, site.url)


@pytest.fixture
def points(request: pytest.FixtureRequest) -> str:
    """`quick` or `all`."""
    return str(request.config.getoption("--torture"))
