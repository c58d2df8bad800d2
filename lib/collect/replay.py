"""Answers captured elsewhere through the same code as fetched ones: judged, parsed, kept. No network is used.

Three forms are read: a HAR file as a browser's network panel exports it, a folder of raw answers, a single answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urldefrag, urljoin, urlsplit

import orjson

from lib.collect.engine_run import DONE, run_and_record
from lib.collect.options import CollectOptions
from lib.collect.pace import HostFallback, engine_lock
from lib.collect.queue import SKIP, SearchLimits, enqueue
from lib.collect.run import CollectReport, EngineQueue
from lib.collect.search import QueryPages
from lib.collect.show import drift_warning
from lib.collect.store import Store
from lib.db import Context
from lib.engines import DEFAULT, filters_in
from lib.engines.base import PAGE, Engine, PageOutcome, PageResponse, SearchRequest, load_engine
from lib.engines.parsing import whole
from lib.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from lib.files.answers import NOTE
from lib.records import OUTCOMES, ParseError
from lib.times import to_text

log = logging.getLogger("gleaner.collect")

LARGEST_FILE = 2 * 2**30  # bytes; a HAR is read into memory once
SUFFIXES = {".json", ".html", ".htm", ".har"}
MOST_REDIRECTS = 5
_NUMBERED = re.compile(r"(?:.*_xhr_)?(?P<page>\d{1,6})(?:\.(?:" + "|".join(OUTCOMES) + r"))?\.(?:json|html?)", re.I)
# The better one of two answers to the same request: results first, then what the engine said of itself.
_WORTH = {"ok": 3, "empty": 2, "end": 2, "parse_error": 0, "network": 0}


class Replay:
    """The answers at `--replay` for the one query that the command line names. Raises UsageError."""

    def __init__(self, context: Context, options: CollectOptions, path: Path):
        self.context, self.options, self.path = context, options, path
        self.engine = load_engine((options.engine or (DEFAULT,))[0])
        waiting = EngineQueue(context, options, self.engine)
        self.planned, self.host, self.limits = waiting.plan(), waiting.hosts[0], waiting.limits
        if len(self.planned) != 1:
            raise UsageError(f"--replay is about one query, and {len(self.planned)} were given; give one.")
        query = self.planned[0].new
        ask = SearchRequest(query.kind, query.text, filters=filters_in(query.params))
        self.pages = read_captured(path, self.engine, self.host, ask)
        if not self.pages:
            raise UsageError(
                f"{path} holds no answer of {self.engine.name} to this query; check --engine, the words "
                "and, for another host than its own, --host."
            )

    def _usable(self, first: int) -> range:
        """The pages from `first` on, as far as none is missing."""
        last = first
        while last in self.pages:
            last += 1
        return range(first, last)

    def preview(self) -> list[str]:
        """Tells what each page would be taken for."""
        row = self.planned[0].row
        return [
            f"Would take page {page} of {self.engine.name}: {self.engine.classify(self.pages[page].answer).outcome}"
            for page in self._usable(row.next_page if row else 0)
        ]

    def run(self) -> CollectReport:
        """Judges, parses and keeps what is new."""
        context, engine = self.context, self.engine
        with engine_lock(context.workspace, engine.name):
            (plan,), _ = enqueue(context, self.planned)
            assert plan.row is not None
            usable = self._usable(plan.row.next_page)
            left = sum(page >= usable.stop for page in self.pages)
            gap = f"page {usable.stop} is not in {self.path}; the {left} pages after it are left out."
            warnings = [gap] if left else []
            if not usable or (plan.action == SKIP and plan.row.outcome != "ok"):
                return CollectReport(_counts(0, 0, "skipped"), warnings=warnings)
            limits = SearchLimits(usable.stop, self.limits.results, self.limits.by)
            store, hosts = Store(context, engine), HostFallback([self.host])
            search = CapturedPages(store, hosts, plan.row, limits, context.stopping, captured=self.pages)
            ending = asyncio.run(run_and_record(search))
            if ending is None:
                return CollectReport(_counts(search.pages, search.results, "interrupted"), warnings=warnings)
            # A later run takes these for the query's own limits, which are not where the capture happens to end.
            goal = {"pages": max(self.limits.pages, limits.pages), "results": limits.results, "found": search.found}
            store.save_cursor(plan.row, search.cursor | goal)
        drifted = drift_warning(context.db, engine.name, context.run_id) if search.pages else ""
        code = EXIT_INCOMPLETE if self.options.strict and ending.outcome not in DONE else EXIT_OK
        warnings += filter(None, [drifted])
        return CollectReport(_counts(search.pages, search.results, ending.outcome), warnings=warnings, exit_code=code)


@dataclass
class CapturedPages(QueryPages):
    """A query whose pages are known already."""

    captured: Mapping[int, Captured] = field(default_factory=dict)

    async def _result_page(self, page: int) -> tuple[PageResponse | None, PageOutcome]:
        answer = self.captured[page].answer
        return answer, self.engine.classify(answer)

    def _received_at(self, page: int) -> str:
        return self.captured[page].received_at


def _counts(pages: int, results: int, outcome: str) -> dict[str, int | float | str]:
    return {"queries": int(outcome != "skipped"), "pages": pages, "results": results, outcome: 1}


@dataclass(frozen=True)
class Captured:
    """A page of results as it was answered once; `received_at` as the database writes times."""

    page: int
    answer: PageResponse
    received_at: str


def read_captured(path: Path, engine: Engine, host: str, ask: SearchRequest) -> dict[int, Captured]:
    """The answers at `path` that belong to a query, by page. Raises UsageError for what cannot be read."""
    places = Places(engine, host, ask)
    named = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name != NOTE) if path.is_dir() else [path]
    found: list[Captured] = []
    plain: list[tuple[Path, bytes]] = []
    for file in sorted(named):
        body, is_har = _read(file), file.suffix.lower() == ".har"
        entries = _har_entries(body) if is_har or b'"entries"' in body[:65536] else None
        if entries is not None:
            found += _from_har(entries, places)
        elif is_har:
            raise UsageError(f"{file} is no HAR file; export it again from the browser's network panel.")
        else:
            plain.append((file, body))
    best: dict[int, Captured] = {}
    for captured in [*found, *_from_files(plain, places)]:
        held = best.get(captured.page)
        if held is None or worth(engine, captured.answer) >= worth(engine, held.answer):
            best[captured.page] = captured
    return best


def worth(engine: Engine, answer: PageResponse) -> int:
    """A rank: the more an answer tells about its page, the higher."""
    return _WORTH.get(engine.classify(answer).outcome, 1)


def _read(file: Path) -> bytes:
    try:
        if not file.is_file():  # a pipe would be waited for
            raise UsageError(f"{file} is no plain file; give another --replay.")
        if file.stat().st_size > LARGEST_FILE:
            raise UsageError(f"{file} is larger than {LARGEST_FILE >> 30} GiB; save a shorter session.")
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); give another --replay.") from error


def _from_files(files: list[tuple[Path, bytes]], places: Places) -> Iterator[Captured]:
    """Pages by the number in the file's name; without one, in the order of the names."""
    numbers = [int(match["page"]) if (match := _NUMBERED.fullmatch(file.name)) else None for file, _ in files]
    if None in numbers or 0 not in numbers:
        ranked = sorted(range(len(files)), key=lambda index: (numbers[index] is None, numbers[index] or 0, index))
        numbers = [ranked.index(index) for index in range(len(files))]
    for (file, body), page in zip(files, numbers, strict=True):
        assert page is not None
        moment = to_text(datetime.fromtimestamp(file.stat().st_mtime, UTC))
        answer = PageResponse(places.part(page, body), places.address(page), 200, {}, body)
        yield Captured(page, answer, moment)


def _har_entries(body: bytes) -> list[dict[str, Any]] | None:
    plain = body.removeprefix(b"\xef\xbb\xbf")
    try:
        try:
            value = orjson.loads(plain)
        except orjson.JSONDecodeError:  # half an emoji, which browsers write, is not for the stricter reader
            value = json.loads(plain)
        entries = value["log"]["entries"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else None


def _from_har(entries: list[dict[str, Any]], places: Places) -> Iterator[Captured]:
    """The entries that ask for a page of this query, each with the answer that its redirects lead to."""
    answers = [_har_answer(entry) for entry in entries]
    asked = []
    for index, (entry, answer) in enumerate(zip(entries, answers, strict=True)):
        if answer is None or not places.is_at_home(answer.url):
            continue
        final = _follow(answer, answers[index + 1 :])
        value = places.of(answer.url, _posted_page(entry), final)
        if value is not None:
            asked.append((value, final, _moment(entry), places.picture(answer.url)))
    if len({picture for *_, picture in asked}) > 1:
        log.warning("the capture holds searches for several pictures; the first one is taken")
        asked = [row for row in asked if row[-1] == asked[0][-1]]
    for page, (_, answer, moment, _) in zip(places.pages([value for value, *_ in asked]), asked, strict=True):
        fragment = urldefrag(places.address(page)).fragment
        url = f"{answer.url}#{fragment}" if fragment else answer.url
        yield Captured(page, replace(answer, part=places.part(page, answer.body), url=url), moment)


@dataclass
class Places:
    """Tells from an address which page of a query it asks for, by what differs between the engine's own addresses."""

    engine: Engine
    host: str
    ask: SearchRequest

    def __post_init__(self) -> None:
        first, second, third = (urlsplit(self.address(page)) for page in range(3))
        self._paths = {first.path, second.path} - {""}
        one, two = _params(second.query), _params(third.query)
        names = [name for name in one if one[name] != two.get(name) and _is_number(one[name], two.get(name, ""))]
        self._name = names[0] if names else ""
        self._step = int(two[self._name]) - int(one[self._name]) if names else 1
        self._start = int(one[self._name]) - self._step if names else 0
        # What only an upload tells is empty here, and has to be there in an address that was really asked for.
        self._told = sorted(name for name, value in _params(first.query).items() if not value and one.get(name) == "")
        text = self.ask.text
        # Some engines have a parameter of the words alone, some put words of their own beside them.
        known = _params(first.query) if text else {}
        self._same = _same if any(_same(value, text) for value in known.values()) else _holds
        self._words = {name for name, value in known.items() if self._same(value, text)}

    def address(self, page: int) -> str:
        """The address that the engine would ask for, as far as it is known without an upload."""
        return self.engine.address(self.host, self.ask, defaultdict(str), page)

    def part(self, page: int, body: bytes) -> str:
        """Part of the conversation that a body belongs to: HTML by the page's number; JSON is never a page."""
        part = self.engine.part(page)
        return self.engine.part(1) if part == PAGE and body.lstrip()[:1] in (b"{", b"[") else part

    def is_at_home(self, url: str) -> bool:
        """True for an address of the engine, or of the host that was asked in its place."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        return origin == self.host or self.engine.knows_host(origin)

    def of(self, url: str, posted: int | None, answer: PageResponse) -> int | None:
        """The value that the address has for the page; None where it asks for something else."""
        parts = urlsplit(url)
        if not self._paths:  # only an upload would tell the address, so the answer has to speak for itself
            return 0 if self._has_results(answer) else None
        if parts.path not in self._paths:
            return None
        params = _params(parts.query)
        if self._words and not any(self._same(params.get(name, ""), self.ask.text) for name in self._words):
            return None
        if not all(params.get(name) for name in self._told):
            return None
        if posted is not None:
            return self._start + posted * self._step
        value = params.get(self._name, "")
        return int(value) if _is_number(value) else self._start

    def _has_results(self, answer: PageResponse) -> bool:
        for part in dict.fromkeys((self.engine.part(0), self.engine.part(1))):
            with suppress(ParseError):
                outcome = self.engine.classify(replace(answer, part=part)).outcome
                if outcome == "ok" and self.engine.parse(part, answer.body).images:
                    return True
        return False

    def picture(self, url: str) -> str:
        """Name of the uploaded picture in an address, which tells it from others; empty for words."""
        return _params(urlsplit(url).query).get(self._told[0], "") if self._told else ""

    def pages(self, values: list[int]) -> list[int]:
        """Page numbers for these values; where the site was asked in other steps than ours, their order."""
        if not self._paths:
            return list(range(len(values)))
        offsets = [value - self._start for value in values]
        if all(offset >= 0 and offset % self._step == 0 for offset in offsets):
            return [offset // self._step for offset in offsets]
        order = sorted(set(values))
        return [order.index(value) for value in values]


def _har_answer(entry: Mapping[str, Any]) -> PageResponse | None:
    """The answer as it was received; None where the capture has none, or is not what a HAR holds."""
    try:
        response, content = entry["response"], entry["response"].get("content") or {}
        text = content.get("text") or ""
        body = base64.b64decode(text) if content.get("encoding") == "base64" else text.encode("utf-8", "replace")
        headers = {_text(h["name"]).lower(): _text(h["value"]) for h in response.get("headers") or ()}
        status, url = _status(response["status"]), _text(entry["request"]["url"])
        urlsplit(url)
        if not text and status == 200:  # the browser had thrown it away
            return None
        status = 200 if status == 304 and text else status
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        return None
    # Without a status the browser got no answer, or took it from elsewhere than the network.
    return PageResponse(PAGE, url, status, headers, body) if status else None


def _status(value: Any) -> int:
    """An HTTP status; 0, which stands for no answer, for what is none."""
    found = whole(value) or 0
    return found if found < 1000 else 0


def _follow(answer: PageResponse, later: list[PageResponse | None]) -> PageResponse:
    """The answer to which the redirects that begin with one lead, as far as the capture tells."""
    for _ in range(MOST_REDIRECTS):
        if not 300 <= answer.status < 400 or "location" not in answer.headers:
            break
        try:
            target = urldefrag(urljoin(answer.url, answer.headers["location"])).url
            urlsplit(target)
        except ValueError:
            break
        found = (other for other in later if other and urldefrag(other.url).url == target)
        if (following := next(found, None)) is None:
            return replace(answer, url=target)
        answer = following
    return answer


def _text(value: object) -> str:
    """Text that can be written down: half an emoji cannot."""
    return str(value).encode("utf-8", "replace").decode()


def _posted_page(entry: Mapping[str, Any]) -> int | None:
    """The page in a JSON body, which is where an API may have it."""
    try:
        sent = orjson.loads(entry["request"]["postData"]["text"])
        page = sent.get("page", sent.get("query", {}).get("page"))
    except (KeyError, TypeError, AttributeError, orjson.JSONDecodeError):
        return None
    return int(page) if _is_number(str(page)) else None


def _moment(entry: Mapping[str, Any]) -> str:
    try:
        moment = datetime.fromisoformat(str(entry["startedDateTime"]).replace("Z", "+00:00"))
        return to_text(moment.astimezone(UTC))
    except (KeyError, ValueError, OverflowError):
        return ""


def _params(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


def _is_number(*texts: str) -> bool:
    return all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts)


def _same(value: str, text: str) -> bool:
    """True where two spellings are the same words."""
    return _words(value) == _words(text)


def _holds(value: str, text: str) -> bool:
    """True where the words stand side by side among others."""
    return f" {' '.join(_words(text))} " in f" {' '.join(_words(value))} "


def _words(text: str) -> list[str]:
    return unicodedata.normalize("NFC", text).casefold().split()
