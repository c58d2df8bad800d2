"""Makes `lib`, `demo` and `tests/support.py` importable whatever folder pytest is started in; holds shared fixtures."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for folder in (Path(__file__).parent, Path(__file__).parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# A background job of a shell ignores Ctrl-C, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On Windows, files of tests that use modules which it lacks are left out, and named at the top of a run.
POSIX_ONLY = re.compile(r"^\s*import (fcntl|pty|resource|termios)$", re.MULTILINE)
collect_ignore = [
    path.name
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if sys.platform == "win32" and POSIX_ONLY.search(path.read_text(encoding="utf-8"))
]


def pytest_report_header() -> str:
    return f"left out on Windows: {', '.join(collect_ignore)}" if collect_ignore else ""


# How long an example takes says more about the machine than about the code; and every run tries the same examples, so
# that one which nobody has met before does not turn up in somebody else's change.
settings.register_profile(
    "gleaner", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gleaner")


@pytest.fixture(autouse=True, scope="session")
def temporary_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Clears what the tests leave at temporary places, those of child processes too, such as pages of dry runs.

    The path is short: Ray makes its sockets below it, whose paths may have 107 characters.
    """
    tmp_path_factory.getbasetemp()  # chosen first: what the tests write stays to be looked at
    folder = tempfile.mkdtemp(prefix="gl-")
    os.chmod(folder, 0o755)  # tests that become another user for a moment have folders below it
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    yield
    shutil.rmtree(folder, ignore_errors=True)


# Fixtures that one family of tests shares; a plugin by name, so that the path above is set first.
pytest_plugins = ["download_fixtures"]
