"""Parsers: pure functions from the bytes of a raw answer to records, one module an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from lib.records import ParsedPage, ParseError

Parse = Callable[[bytes], ParsedPage]

# (engine, part) -> module and function. The version rises when a parser begins to read more than it did.
_REGISTRY: dict[tuple[str, str], tuple[str, str, int]] = {
    ("yandex", "page"): ("lib.parsers.yandex", "parse_page", 1),
    ("yandex", "xhr"): ("lib.parsers.yandex", "parse_xhr", 1),
    ("yandex-cloud", "api"): ("lib.parsers.yandex_cloud", "parse_api", 1),
    ("baidu", "xhr"): ("lib.parsers.baidu", "parse_acjson", 1),
    ("baidu", "page"): ("lib.parsers.baidu", "parse_page", 1),  # the `flip` page of old, for imports
    ("baidu-graph", "page"): ("lib.parsers.baidu_graph", "parse_page", 1),
    ("baidu-graph", "api"): ("lib.parsers.baidu_graph", "parse_api", 1),
    ("naver", "page"): ("lib.parsers.naver", "parse_page", 1),
    ("naver-api", "api"): ("lib.parsers.naver_api", "parse_api", 1),
    ("bing", "page"): ("lib.parsers.bing", "parse_page", 1),
    ("openverse", "api"): ("lib.parsers.openverse", "parse_api", 1),
    ("commons", "api"): ("lib.parsers.commons", "parse_api", 1),
}


@dataclass(frozen=True)
class Parser:
    """A parser and the name under which `responses.parser` remembers it, such as `yandex-xhr/1`."""

    name: str
    parse: Parse


def parser_for(engine: str, part: str) -> Parser:
    """The parser of an engine's kind of answer. Raises ParseError where there is none."""
    try:
        module, function, version = _REGISTRY[engine, part]
    except KeyError:
        raise ParseError("no_parser") from None
    return Parser(f"{engine}-{part}/{version}", getattr(import_module(module), function))


def engines() -> list[str]:
    """The engines whose answers can be read."""
    return sorted({engine for engine, _ in _REGISTRY})


def part_of(engine: str, suffix: str) -> str:
    """Which part of an engine's answers a raw file holds, by the suffix of its name."""
    if suffix in (".html", ".htm"):
        return "page"
    return next((part for part in ("xhr", "api") if (engine, part) in _REGISTRY), "page")
