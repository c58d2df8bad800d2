"""The search engines of step 1: one module each, behind the contract of `lib.engines.base`.

Names are known without importing a module, because `--help` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.engines.base import Engine

# Name on the command line -> module under lib.engines that holds a class `Source`. Open sources first, then keyed ones.
MODULES = {
    "openverse": "openverse",
    "commons": "commons",
    "yandex-cloud": "yandex_cloud",
    "naver-api": "naver_api",
    "yandex": "yandex",
    "baidu": "baidu",
    "baidu-graph": "baidu_graph",
    "naver": "naver",
    "bing": "bing",
}
NAMES = tuple(MODULES)
DEFAULT = "yandex"

# What keyword searches can be narrowed by. An engine knows some of these values and refuses the others by name.
FILTER_VALUES: Mapping[str, tuple[str, ...]] = {
    "size": ("small", "medium", "large", "huge"),
    "orientation": ("landscape", "portrait", "square"),
    "type": ("photo", "clipart", "drawing", "face", "gif"),
    "licence": ("cc", "commercial", "modify", "public-domain"),
}


def load_engine(name: str, environ: Mapping[str, str] | None = None) -> Engine:
    """The engine of that name; `environ` is where it looks up its keys, the process's own by default."""
    made: Engine = import_module(f"lib.engines.{MODULES[name]}").Source(environ)
    return made
