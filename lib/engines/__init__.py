"""The search engines of step 1: one module each, behind the contract of `lib.engines.base`.

Names are known without importing a module, because `--help` shows them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.engines.base import Engine

# name on the command line -> module under lib.engines that holds a class `Source`
MODULES = {"yandex": "yandex"}
NAMES = tuple(MODULES)
DEFAULT = "yandex"


def load_engine(name: str) -> Engine:
    """The engine of that name."""
    made: Engine = import_module(f"lib.engines.{MODULES[name]}").Source()
    return made
