"""What the tests of step 5 are given: a server that misbehaves, running and reset, and a workspace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_server import Site, hostile_server
from raw_server import RawSite, raw_server

from lib.workspace import Workspace


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with hostile_server() as running:
        yield running


@pytest.fixture
def site(server: Site) -> Site:
    server.asked.clear()
    server.headers.clear()
    server.peers.clear()
    server.robots_asked.clear()
    server.robots = None
    server.robots_headers, server.unchanged = {}, {}
    server.version = server.changes = 0
    server.part, server.lie = 3 << 20, False
    server.hold, server.undated = 0.0, True
    server.ranges.clear()
    server.bodies.clear()
    server.slow, server.held, server.most = 0.0, False, math.inf
    server.most_at_once = 0
    return server


@pytest.fixture(scope="module")
def raw_site() -> Iterator[RawSite]:
    with raw_server() as running:
        yield running


@pytest.fixture
def raw(raw_site: RawSite) -> RawSite:
    raw_site.answers.clear()
    raw_site.requests.clear()
    raw_site.held.clear()
    return raw_site


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")
