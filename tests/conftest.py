"""Makes `lib`, `demo` and `tests/support.py` importable whatever folder pytest is started in; holds shared fixtures."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for folder in (Path(__file__).parent, Path(__file__).parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# A background job of a shell ignores Ctrl-C, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code; and every run tries the same examples, so
# that one which nobody has met before does not turn up in somebody else's change.
settings.register_profile(
    "gleaner", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gleaner")


@pytest.fixture(autouse=True, scope="session")
def temporary_places(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lets the pages of dry runs end among the tests' own files, those of child processes too."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))


# Fixtures that one family of tests shares; a plugin by name, so that the path above is set first.
pytest_plugins = ["download_fixtures"]
