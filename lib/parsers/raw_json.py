"""JSON from outside: fast when it is right, repaired when it is nearly right, a short reason when it is not."""

from __future__ import annotations

import re
from typing import Any

import orjson

from lib.records import ParseError

# Recorded answers stay below 3 MiB and 10,000 objects and lists. Both limits bound the memory that a hostile file can
# take: an empty object costs 64 bytes, and one that is read as an address about 500.
LARGEST_BODY = 16 * 2**20
MOST_CONTAINERS = 300_000

_CONTROLS = dict.fromkeys(range(32), " ")
_ESCAPE = re.compile(
    r"\\(?:[\"\\/bfnrt]"
    r"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u(?P<lone>[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|u[0-9a-fA-F]{4}"
    r"|(?P<wrong>.?))",
    re.DOTALL,
)


def load_json(body: bytes) -> tuple[Any, bool]:
    """The value, and whether invalid escapes, lone surrogates, control characters or bad UTF-8 had to be mended.

    Raises ParseError with `too_large`, `too_complex` or `not_json`.
    """
    check_size(body)
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError:
        return _load_repaired(body.decode("utf-8-sig", "replace")), True


def load_json_text(found: str) -> tuple[Any, bool]:
    """Like `load_json`, for text that was cut out of a page."""
    try:
        return orjson.loads(found), False
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return _load_repaired(found.encode("utf-8", "replace").decode("utf-8")), True


def check_size(body: bytes) -> None:
    """Refuses what would not fit in memory once parsed."""
    if len(body) > LARGEST_BODY:
        raise ParseError("too_large")
    if len(body) > MOST_CONTAINERS and body.count(b"{") + body.count(b"[") > MOST_CONTAINERS:
        raise ParseError("too_complex")


def _load_repaired(found: str) -> Any:
    try:
        return orjson.loads(_ESCAPE.sub(_right_escape, found.translate(_CONTROLS)))
    except orjson.JSONDecodeError:
        raise ParseError("not_json") from None


def _right_escape(match: re.Match[str]) -> str:
    if match["lone"]:
        return "\\ufffd"
    if match["wrong"] == "'":
        return "'"  # Baidu escapes apostrophes, as JavaScript allows and JSON does not
    if match["wrong"] is not None:
        return "\\\\" + match["wrong"]
    return match[0]
