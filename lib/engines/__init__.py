"""The search engines of step 1: one module each, behind the contract of `lib.engines.base`.

Names, parsers and filters are known without importing an engine, because `--help` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lib.records import ParsedPage, ParseError

# Name on the command line -> module under lib.engines and its class. Open sources first, then keyed ones.
SOURCES = {
    "openverse": ("openverse", "Openverse"),
    "commons": ("commons", "Commons"),
    "yandex-cloud": ("yandex_cloud", "YandexCloud"),
    "naver-api": ("naver_api", "NaverApi"),
    "yandex": ("yandex", "Yandex"),
    "baidu": ("baidu", "Baidu"),
    "baidu-graph": ("baidu_graph", "BaiduGraph"),
    "naver": ("naver", "Naver"),
    "bing": ("bing", "Bing"),
}
NAMES = tuple(SOURCES)
DEFAULT = "yandex"

# What keyword searches can be narrowed by. An engine knows some of these values and refuses the others by name.
FILTER_VALUES: Mapping[str, tuple[str, ...]] = {
    "size": ("small", "medium", "large", "huge"),
    "orientation": ("landscape", "portrait", "square"),
    "type": ("photo", "clipart", "drawing", "face", "gif"),
    "licence": ("cc", "commercial", "modify", "public-domain"),
}

Parse = Callable[[bytes], ParsedPage]

# (engine, part) -> module, function, version. A version rises with what a parser reads; step 2 then reads again what an
# older one has read.
_REGISTRY: dict[tuple[str, str], tuple[str, str, int]] = {
    ("yandex", "page"): ("lib.engines.yandex", "parse_page", 1),
    ("yandex", "xhr"): ("lib.engines.yandex", "parse_xhr", 1),
    ("yandex-cloud", "api"): ("lib.engines.yandex_cloud", "parse_api", 2),
    ("baidu", "xhr"): ("lib.engines.baidu", "parse_acjson", 2),
    ("baidu", "page"): ("lib.engines.baidu", "parse_page", 2),  # the `flip` page of old, for imports
    ("baidu-graph", "page"): ("lib.engines.baidu_graph", "parse_page", 2),
    ("baidu-graph", "api"): ("lib.engines.baidu_graph", "parse_api", 2),
    ("naver", "page"): ("lib.engines.naver", "parse_page", 2),
    ("naver-api", "api"): ("lib.engines.naver_api", "parse_api", 2),
    ("bing", "page"): ("lib.engines.bing", "parse_page", 2),
    ("openverse", "api"): ("lib.engines.openverse", "parse_api", 2),
    ("commons", "api"): ("lib.engines.commons", "parse_api", 2),
}


@dataclass(frozen=True)
class Parser:
    """A parser and the name under which `responses.parser` remembers it, such as `yandex-xhr/1`."""

    name: str
    parse: Parse


def parser_for(engine: str, part: str) -> Parser:
    """The parser of an engine's kind of response. Raises ParseError where there is none."""
    try:
        module, function, version = _REGISTRY[engine, part]
    except KeyError:
        raise ParseError("no_parser") from None
    return Parser(f"{engine}-{part}/{version}", getattr(import_module(module), function))


def parser_names() -> list[str]:
    """The names of all parsers of today, as `responses.parser` remembers them."""
    return [f"{engine}-{part}/{version}" for (engine, part), (_, _, version) in _REGISTRY.items()]


def engines() -> list[str]:
    """The engines whose answers can be read."""
    return sorted({engine for engine, _ in _REGISTRY})


def part_of(engine: str, suffix: str) -> str:
    """Returns the part of an engine's answers that a raw file holds, by the suffix of its name."""
    if suffix in (".html", ".htm"):
        return "page"
    return next((part for part in ("xhr", "api") if (engine, part) in _REGISTRY), "page")


def filters_in(params: Mapping[str, Any]) -> dict[str, str]:
    """The filters among a query's parameters or a step's arguments, such as size -> large."""
    return {name: str(params[name]) for name in FILTER_VALUES if params.get(name)}
