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

PROMISED = "results_promised"  # an answer that counts results and shows none
MOST_DIGITS = 18  # of a count
_GROUPING = re.compile(r"[\s,.'\u00a0\u202f]")
# `"totalCount":"1,234"`, also with the quotation marks that an attribute has.
_MARK = rb"(?:[\"']|&quot;|&#34;)?"
_COUNT = re.compile(
    rb"\b(?:total|totalCount|total_count|itemCount|resultCount|resultsCount|foundDocs|docsFound|numFound)"
    + _MARK + rb"\s*:\s*" + _MARK + rb"([0-9][0-9,.]{0,24})"
)  # fmt: skip
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
    return int(found[:MOST_DIGITS]) if found.isascii() and found.isdigit() else default


def nothing(first: bool, promised: int = 0, seen: int = 0) -> Verdict:
    """An answer without results: on the first page nothing was found, later that was all.

    `promised` is how many results the engine says that it has, `seen` how many the pages before had room for: where
    more are promised than were seen, the answer has results and none of them could be read.
    """
    if promised > seen:
        return Verdict("parse_error", PROMISED)
    return Verdict("empty") if first else Verdict("end", "no_more_results")


def count_in(found: Mapping[str, Any], *names: str) -> int:
    """The largest of some counts, as numbers or as text ("1,234"); 0 where there is none."""
    return max((_counted(found.get(name)) for name in names), default=0)


def count_on(page: bytes) -> int:
    """The largest count of results that a page names in its data; 0 where it names none."""
    return max((_counted(match[1].decode()) for match in _COUNT.finditer(page)), default=0)


def _counted(value: Any) -> int:
    if isinstance(value, str):
        digits = _GROUPING.sub("", value)
        return int(digits[:MOST_DIGITS]) if digits.isascii() and digits.isdigit() else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return 0
    return int(value)


def query_url(host: str, path: str, params: Mapping[str, str]) -> str:
    return f"{host}{path}?{urlencode(params, quote_via=quote)}"


def as_body(value: Mapping[str, Any]) -> bytes:
    """A JSON request in the fewest bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
