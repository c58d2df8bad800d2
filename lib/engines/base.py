"""The contract of a search engine, and the judgements that all engines share.

An engine is constants (what it is and how gently it wants to be treated), methods that ask (`upload`, `fetch`), and
pure methods that judge what came back (`classify`, `read_upload`, `parse`, `is_last_page`). It knows no database, no
file and no browser: it is given a `SearchRequest` and a `Web`, and it gives `PageResponse`s. Everything that takes
patience (pace, retries, other hosts, consent pages, a stop at a captcha) is done for all engines alike by
`lib.collect`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from lib.engines import SOURCES, parser_for
from lib.engines.parsing import load_json
from lib.errors import UsageError
from lib.records import ParsedPage, ParseError
from lib.times import retry_after as seconds_until

LONGEST_PAUSE = 30 * 86_400.0  # seconds; who asks for a pause beyond what a calendar holds gets a month
PAGE, XHR, API, UPLOAD = "page", "xhr", "api", "upload"

PROMISED = "results_promised"  # a response that counts results and shows none
MOST_DIGITS = 18  # of a count
CONTACT = "GLEANER_CONTACT"
_CONTACT = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|https?://\S+")
_GROUPING = re.compile(r"[\s,.'\u00a0\u202f]")
# `"totalCount":"1,234"`, also with the quotation marks that an attribute has.
_MARK = rb"(?:[\"']|&quot;|&#34;)?"
_COUNT = re.compile(
    rb"\b(?:total|totalCount|total_count|itemCount|resultCount|resultsCount|foundDocs|docsFound|numFound)"
    + _MARK + rb"\s*:\s*" + _MARK + rb"([0-9][0-9,.]{0,24})"
)  # fmt: skip
JSON_ONLY = {"Accept": "application/json"}
CONSENT_LABELS = ("Allow all", "Accept all", "Accept", "全部接受", "全部同意", "모두 동의", "모두 허용")


@dataclass(frozen=True)
class PageResponse:
    """A server's response, as received. `part` is what was asked for; `url` is the address after redirects."""

    part: str
    url: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class PageOutcome:
    """The meaning of a response: one of `lib.records.OUTCOMES`, and a few words for a person."""

    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class SearchRequest:
    """One search: words, or the bytes of a picture that the engine takes as they are."""

    kind: str  # image or keyword
    text: str = ""
    picture: bytes = field(default=b"", repr=False)
    mime: str = ""
    filters: Mapping[str, str] = field(default_factory=dict, hash=False)  # such as size -> large; keywords only


@dataclass(frozen=True)
class FilePart:
    """A file in a multipart form."""

    form_field: str
    name: str
    mime: str
    content: bytes = field(repr=False)


class FetchError(Exception):
    """No response came. `reason` is short and stable: timeout, connection_refused, browser_crashed, …"""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Web(Protocol):
    """An engine's way to its host. Every method raises FetchError where no response came."""

    async def open(self, url: str) -> PageResponse:
        """Goes to an address as a person would; the response is the document as received."""

    async def get(self, url: str, *, part: str, headers: Mapping[str, str]) -> PageResponse:
        """Asks for data, from within the open page where that is on the same host."""

    async def post(
        self, url: str, *, headers: Mapping[str, str], form: FilePart | None = None, body: bytes = b""
    ) -> PageResponse:
        """Sends a picture, as a form or as the plain body; the response's part is `upload`."""

    async def submit(self, labels: Sequence[str]) -> PageResponse | None:
        """Presses the first button of the open page with one of the labels; gives the page that it leads to, if any."""

    async def value(self, name: str) -> bytes:
        """A variable of the open page as JSON; empty where it has none, and where there is no browser to ask."""


class Engine:
    """The base of all engines. A subclass overrides the constants first, then only what differs."""

    name: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    hosts: ClassVar[tuple[str, ...]]  # tried in this order
    interval: ClassVar[float]  # seconds between two requests
    jitter: ClassVar[float] = 0.5  # up to this share of the interval is added at random
    page_size: ClassVar[int]  # results on one page, roughly
    default_pages: ClassVar[int] = 5
    most_pages: ClassVar[int] = 100
    needs_browser: ClassVar[bool] = False
    keeps_cookies: ClassVar[bool] = False  # without a browser: whether the session has a cookie jar
    keys: ClassVar[tuple[str, ...]] = ()  # environment variables that must be set
    other_keys: ClassVar[tuple[str, ...]] = ()  # a set of variables that will do in their place
    wants_contact: ClassVar[bool] = False  # whether its terms ask who we are: GLEANER_CONTACT
    needs_contact: ClassVar[bool] = False  # whether it refuses who does not say
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {}  # filter -> value -> the engine's own, as in "z=3&lm=6"
    filter_joint: ClassVar[str] = " "  # between two filters' values for the same parameter
    domains: ClassVar[tuple[str, ...]] = ()  # host names that are the engine's own beside those of `hosts`
    tells_last_page: ClassVar[bool] = True  # False where only a page with nothing new is the end
    filtered_kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})  # the searches that filters apply to
    upload_limit: ClassVar[int] = 0  # bytes
    upload_formats: ClassVar[frozenset[str]] = frozenset({"jpeg"})  # anything else is sent as JPEG
    upload_ways: ClassVar[int] = 1  # `upload` is tried with way 0, 1, … until one is accepted
    upload_keeps: ClassVar[float] = 3600.0  # seconds for which the engine is trusted to remember an upload
    captcha_pause: ClassVar[float] = 3600.0  # seconds to leave the engine alone after a captcha
    blocked_pause: ClassVar[float] = 900.0  # the same after a refusal that names no time
    consent_labels: ClassVar[tuple[str, ...]] = ()
    kept_headers: ClassVar[tuple[str, ...]] = ("content-type", "date", "retry-after")
    terms: ClassVar[str] = ""  # one sentence for --help and the documentation

    def __init__(self, environ: Mapping[str, str] | None = None):
        """`environ` is where keys are looked up, at the moment of use; None is the environment of the process."""
        self.environ: Mapping[str, str] = os.environ if environ is None else environ

    def key(self, name: str) -> str:
        """A key from the environment without the blanks that copying adds; empty where it is not set."""
        return self.environ.get(name, "").strip()

    def missing_keys(self) -> tuple[str, ...]:
        """The environment variables that have to be set before the engine can be asked."""
        if self.other_keys and all(map(self.key, self.other_keys)):
            return ()
        return tuple(name for name in self.keys if not self.key(name))

    @property
    def contact(self) -> str:
        """The address of mail or of a page under which we can be reached; empty where there is none."""
        found = self.key(CONTACT)
        return found if _CONTACT.search(found) else ""

    def require_keys(self) -> None:
        """Raises UsageError with one sentence where a key is missing, or a contact that the source insists on."""
        if self.needs_contact and not self.contact:
            raise UsageError(
                f"{self.name} asks every client who it is and refuses those who do not say; set {CONTACT} to your mail"
                " address or a page (https://…), or choose another --engine such as openverse."
            )
        if missing := self.missing_keys():
            other = f" (or {' and '.join(self.other_keys)})" if self.other_keys else ""
            raise UsageError(
                f"{self.name} needs {' and '.join(missing)}{other} in the environment; set them, or choose another "
                "--engine such as openverse or commons, which need no key."
            )

    def filter_params(self, filters: Mapping[str, str], kind: str = "keyword") -> dict[str, str]:
        """The engine's own parameters for filters such as size -> large. Raises UsageError for one it cannot do."""
        if filters and kind not in self.filtered_kinds:
            raise UsageError(f"{self.name} cannot filter a search by {kind}; leave out --{' and --'.join(filters)}.")
        params: dict[str, str] = {}
        for name, value in filters.items():
            known = self.FILTERS.get(name)
            if known is None or value not in known:
                raise UsageError(f"{self.name} cannot filter by {name} {value!r}; {self._filters_known(known)}.")
            for parameter, wanted in (pair.split("=", 1) for pair in known[value].split("&") if pair):
                params[parameter] = self.filter_joint.join(filter(None, (params.get(parameter), wanted)))
        return params

    def _filters_known(self, values: Mapping[str, str] | None) -> str:
        if values is not None:
            return f"it knows {', '.join(values)}"
        return f"it filters by {' and '.join(self.FILTERS)}" if self.FILTERS else "it has no filters"

    def classify(self, response: PageResponse) -> PageOutcome:
        """Says what the response means, before it is parsed. Pure."""
        raise NotImplementedError

    def parse(self, part: str, body: bytes) -> ParsedPage:
        """The results in a response that was classified as `ok`. Pure; raises ParseError."""
        return parser_for(self.name, part).parse(body)

    def is_last_page(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """True where the response itself says that no page follows. Pure."""
        return self.tells_last_page and not parsed.next_url

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        """The URL of a page of results, counted from 0; just the host where only an upload would tell it. Pure."""
        return host

    def headers(self, host: str, request: SearchRequest) -> Mapping[str, str]:
        """The headers of a request for a page of results."""
        return JSON_ONLY

    def part(self, page: int) -> str:
        """In which part of the conversation a result page is found."""
        return API

    def knows_host(self, host: str) -> bool:
        """True for a host of the engine itself, so that its other hosts may stand in for it."""
        return host in self.hosts or (urlsplit(host).hostname or "") in self.domains

    async def upload(self, web: Web, host: str, request: SearchRequest, way: int) -> PageResponse:
        """Sends the query picture."""
        raise NotImplementedError

    def read_upload(self, response: PageResponse) -> dict[str, Any]:
        """Returns the JSON values for the query's cursor that later requests need of an accepted upload. Pure."""
        return {}

    async def warm_up(self, web: Web, host: str) -> None:
        """Comes back to the engine to go on with a query of an earlier run; nothing has to be done as a rule."""

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        """Asks for one result page, counted from 0."""
        url = self.address(host, request, cursor, page)
        return await web.get(url, part=self.part(page), headers=self.headers(host, request))


def load_engine(name: str, environ: Mapping[str, str] | None = None) -> Engine:
    """The engine of that name; `environ` is where it looks up its keys, the process's own by default."""
    module, kind = SOURCES[name]
    made: Engine = getattr(import_module(f"lib.engines.{module}"), kind)(environ)
    return made


def query_url(host: str, path: str, params: Mapping[str, str]) -> str:
    return f"{host}{path}?{urlencode(params, quote_via=quote)}"


def compact_json(value: Mapping[str, Any]) -> str:
    """A JSON request in the fewest characters."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, 0 for a date that has passed; None without one."""
    seconds = seconds_until(headers.get("retry-after"), most=LONGEST_PAUSE, now=now)
    return None if seconds is None else max(0.0, seconds)


def judge_status(response: PageResponse, other: str = "") -> PageOutcome | None:
    """Judges by the status alone; None where the body has to be looked at.

    `other` is the outcome of a status that is neither a success nor among the usual refusals; without it the body
    decides about those.
    """
    if response.status == 401:
        return PageOutcome("blocked", "key_refused")
    asked_to_wait = response.status == 503 and "retry-after" in response.headers
    if response.status in (403, 429, 451) or asked_to_wait:
        return PageOutcome("blocked", f"http_{response.status}")
    outcome = "network" if response.status >= 500 else other
    return PageOutcome(outcome, f"http_{response.status}") if outcome and response.status != 200 else None


def judge_json(response: PageResponse) -> Mapping[str, Any] | PageOutcome:
    """The object in the body; or what the status means, or the want of an object."""
    if (outcome := judge_status(response)) is not None:
        return outcome
    found = json_object(response)
    return not_an_object(response) if found is None else found


def is_html(response: PageResponse) -> bool:
    return response.body.lstrip()[:1] == b"<"


def consent_button(labels: Sequence[str]) -> re.Pattern[str]:
    """Finds a button with one of the labels, of a page that asks to agree to cookies."""
    return re.compile(r"<button[^>]{0,300}>(?:\s|<[^>]{0,200}>)*(?:" + "|".join(labels) + r")\s*<", re.IGNORECASE)


_CONSENT = consent_button(CONSENT_LABELS)


def is_consent(response: PageResponse, button: re.Pattern[str] = _CONSENT) -> bool:
    """True for a page that asks to agree to cookies; to be asked of pages without results only."""
    return button.search(response.body.decode("utf-8", "replace")) is not None


def json_object(response: PageResponse) -> Mapping[str, Any] | None:
    """The object in the body; None where there is none."""
    try:
        value, _ = load_json(response.body)
    except ParseError:
        return None
    return value if isinstance(value, dict) else None


def not_an_object(response: PageResponse) -> PageOutcome:
    """For a response that should have been a JSON object: whose page stands in its place."""
    return (
        PageOutcome("blocked", "html_instead_of_json") if is_html(response) else PageOutcome("parse_error", "not_json")
    )


def asked(response: PageResponse, name: str, default: int) -> int:
    """A number in the query of the address that was asked for, such as the page."""
    found = parse_qs(urlsplit(response.url).query).get(name, [""])[0]
    return int(found[:MOST_DIGITS]) if found.isascii() and found.isdigit() else default


def nothing(first: bool, promised: int = 0, seen: int = 0) -> PageOutcome:
    """A response without results: on the first page nothing was found, later that was all.

    `promised` is how many results the engine says that it has, `seen` how many the pages before had room for: where
    more are promised than were seen, the response has results and none of them could be read.
    """
    if promised > seen:
        return PageOutcome("parse_error", PROMISED)
    return PageOutcome("empty") if first else PageOutcome("end", "no_more_results")


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
