"""What the engines that need no browser judge alike: the status of an answer, and JSON before it is parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from lib.engines.base import Answer, Verdict
from lib.parsers.raw_json import load_json
from lib.records import ParseError

JSON_ONLY = {"Accept": "application/json"}
CONSENT_LABELS = ("Allow all", "Accept all", "Accept", "全部接受", "全部同意", "모두 동의", "모두 허용")
_CONSENT = re.compile(
    r"<button[^>]{0,300}>(?:\s|<[^>]{0,200}>)*(?:" + "|".join(CONSENT_LABELS) + r")\s*<", re.IGNORECASE
)


def judge_status(answer: Answer) -> Verdict | None:
    """What the status alone says; None where the body has to be looked at."""
    if answer.status == 401:
        return Verdict("blocked", "key_refused")
    asked_to_wait = answer.status == 503 and "retry-after" in answer.headers
    if answer.status in (403, 429, 451) or asked_to_wait:
        return Verdict("blocked", f"http_{answer.status}")
    return Verdict("network", f"http_{answer.status}") if answer.status >= 500 else None


def is_html(answer: Answer) -> bool:
    return answer.body.lstrip()[:1] == b"<"


def is_consent(answer: Answer) -> bool:
    """Whether a page asks to agree to cookies; to be asked of pages without results only."""
    return _CONSENT.search(answer.body.decode("utf-8", "replace")) is not None


def json_object(answer: Answer) -> Mapping[str, Any] | None:
    """The object in the body; None where there is none."""
    try:
        value, _ = load_json(answer.body)
    except ParseError:
        return None
    return value if isinstance(value, dict) else None


def not_an_object(answer: Answer) -> Verdict:
    """For an answer that should have been a JSON object: whose page stands in its place."""
    return Verdict("blocked", "html_instead_of_json") if is_html(answer) else Verdict("parse_error", "not_json")


def asked(answer: Answer, name: str, default: int) -> int:
    """A number in the query of the address that was asked for, such as the page."""
    found = parse_qs(urlsplit(answer.url).query).get(name, [""])[0]
    return int(found) if found.isascii() and found.isdigit() else default


def nothing(first: bool) -> Verdict:
    """An honest answer without results: on the first page nothing was found, later that was all."""
    return Verdict("empty") if first else Verdict("end", "no_more_results")


def query_url(host: str, path: str, params: Mapping[str, str]) -> str:
    return f"{host}{path}?{urlencode(params, quote_via=quote)}"


def as_body(value: Mapping[str, Any]) -> bytes:
    """A JSON request in the fewest bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
