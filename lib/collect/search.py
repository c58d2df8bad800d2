"""One query at one engine: from the first page that is not stored to its end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lib.collect.pace import HostFallback, Interrupted, PacedSession
from lib.collect.queue import prepare_upload
from lib.collect.reach import MAX_RESULTS, SOURCE_END, SearchLimits
from lib.collect.store import Store
from lib.db import never
from lib.db.queries import QueryRow
from lib.engines import filters_in
from lib.engines.base import Engine, FetchError, PageOutcome, PageResponse, SearchRequest, retry_after
from lib.images.decode import DecodeError
from lib.records import ParsedPage, ParseError

ATTEMPTS = 3  # of one request
BACKOFF = (2.0, 8.0)  # seconds after the first and the second failure
LONGEST_WAIT = 60.0  # seconds that a run waits by itself when the engine asks for it; above, it stops
# How often one page of results is asked for again after each of these; another host is tried while there is one.
SECOND_TRIES = {"consent": 2, "wrong_tab": 1, "captcha": 3}
# The looks of a forgotten upload: the engine does not say that it has forgotten it.
DOUBTFUL = frozenset({"end", "empty", "wrong_tab", "parse_error", "upload_rejected"})

Judged = tuple[PageResponse | None, PageOutcome]


@dataclass(frozen=True)
class Ending:
    """The end of the work on a query. `wait` is how many seconds the engine wants to be left alone, `by` the limit
    that was reached."""

    outcome: str
    detail: str = ""
    wait: float | None = None
    by: str = field(default="", compare=False)


@dataclass
class QueryPages:
    """The pages of one query, judged, parsed and stored one after the other; a subclass knows where they come from.

    `halted` tells that the engine was stopped meanwhile.
    """

    store: Store
    hosts: HostFallback
    query: QueryRow
    limits: SearchLimits
    halted: Callable[[], bool] = never
    on_page: Callable[[], None] = lambda: None
    pages: int = 0  # stored by this run
    results: int = 0
    found: int = 0  # results by now, those of earlier runs included, each once
    cursor: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return self.store.engine

    async def run(self) -> Ending:
        """Fetches and keeps page after page. Raises Interrupted when it has to end early."""
        limits = self.limits
        self.cursor = dict(self.query.cursor) | {"pages": limits.pages, "results": limits.results, "by": limits.by}
        self.hosts.prefer(str(self.cursor.get("host", "")))
        began_before = "host" in self.query.cursor
        self.store.begin(self.query, self.cursor | {"host": self.hosts.name})
        seen = self.store.seen(self.query) if self.query.next_page else set()
        ending = await self._read_pages(seen, began_before=began_before)
        self.found = len(seen)
        if ending.outcome == "ok":  # a later run with other limits has to know how far this one came
            self.store.save_cursor(self.query, self.cursor | {"found": self.found})
        return ending

    async def _read_pages(self, seen: set[str], *, began_before: bool) -> Ending:
        limits = self.limits
        for page in range(self.query.next_page, limits.pages):
            if self.halted():
                raise Interrupted
            if limits.results and len(seen) >= limits.results:
                return Ending("ok", by=MAX_RESULTS)
            ending = (began_before and self._adopt(page, seen)) or await self._take(page, seen)
            if ending.outcome != "ok":
                return replace(ending, by=SOURCE_END) if ending.outcome in ("end", "empty") else ending
        enough = limits.results is not None and len(seen) >= limits.results
        return Ending("ok", by=MAX_RESULTS if enough else limits.by)

    def _adopt(self, page: int, seen: set[str]) -> Ending | None:
        """Takes over a page that a killed run had written; None where there is none or it cannot be read."""
        try:
            address = self.engine.address(self.hosts.name, self._plain_ask(), self.cursor, page)
            answer = self.store.adopt(self.query, page, address)
            parsed = self.engine.parse(answer.part, answer.body) if answer else None
        except (KeyError, ParseError):  # it was never uploaded, so nothing of it can be here; or the file is broken
            return None
        if answer is None or parsed is None or not parsed.images:
            return None
        self.store.keep_adopted(self.query, page, answer, parsed)
        return self._count(answer, parsed, seen)

    async def _take(self, page: int, seen: set[str]) -> Ending:
        """Gets one page, judges it, keeps it."""
        answer, verdict = await self._result_page(page)
        parsed = ParsedPage(())
        if answer is not None and verdict.outcome == "ok":
            verdict, parsed = self._parse(page, answer, seen)
        if answer is None or answer.part not in ("page", "xhr", "api"):
            return self._ending(answer, verdict)
        if verdict.outcome != "network":
            self.store.keep(self.query, page, answer, verdict, parsed, self._received_at(page))
        return self._count(answer, parsed, seen) if verdict.outcome == "ok" else self._ending(answer, verdict)

    async def _result_page(self, page: int) -> Judged:
        """A page of results, or what stood in its way."""
        raise NotImplementedError

    def _received_at(self, page: int) -> str:
        """The time at which a page was answered; empty means now."""
        return ""

    def _parse(self, page: int, answer: PageResponse, seen: set[str]) -> tuple[PageOutcome, ParsedPage]:
        try:
            parsed = self.engine.parse(answer.part, answer.body)
        except ParseError as error:
            return PageOutcome("captcha" if str(error) == "captcha" else "parse_error", str(error)), ParsedPage(())
        ids = {image.engine_id for image in parsed.images}
        # An answer that was judged to hold results and gives none has changed its shape; an honest end skips nothing.
        if not ids and (page == 0 or parsed.skipped):
            return PageOutcome("parse_error", "no_results_and_no_word_of_it"), parsed
        if not ids - seen:
            return PageOutcome("end", "no_new_results"), parsed
        return PageOutcome("ok"), parsed

    def _count(self, answer: PageResponse, parsed: ParsedPage, seen: set[str]) -> Ending:
        ids = {image.engine_id for image in parsed.images}
        self.pages += 1
        self.on_page()
        self.results += len(ids - seen)
        seen |= ids
        return Ending("end" if self.engine.is_last_page(answer.part, answer.body, parsed) else "ok")

    def _ending(self, answer: PageResponse | None, verdict: PageOutcome) -> Ending:
        return Ending(verdict.outcome, verdict.detail)

    def _plain_ask(self) -> SearchRequest:
        """The question without the picture's bytes, which only an upload needs."""
        return SearchRequest(self.query.kind, self.query.text, filters=filters_in(self.query.params))


# Waits until a person has passed the captcha in an answer; the text is an address to show. True when it is passed.
Helper = Callable[[PageResponse, str], Awaitable[bool]]


@dataclass
class QuerySearch(QueryPages):
    """The search for one query over the network."""

    web: PacedSession = field(kw_only=True)
    patient: bool = True  # False at a loopback host: nobody has to be spared
    helper: Helper | None = None
    ask: SearchRequest | None = None
    _entered: bool = False  # the engine knows us, and our picture, in this run
    _remembered: bool = False  # by an upload of an earlier run that has not proved to be known yet
    _tried_hosts: set[str] = field(default_factory=set)

    def _ending(self, answer: PageResponse | None, verdict: PageOutcome) -> Ending:
        pauses = {"captcha": self.engine.captcha_pause, "blocked": self.engine.blocked_pause}
        wait = pauses.get(verdict.outcome)
        if wait is not None:
            asked = retry_after(answer.headers) if answer else None
            wait = asked if asked is not None else wait if self.patient else 0.0
        return Ending(verdict.outcome, verdict.detail, wait)

    async def _result_page(self, page: int) -> Judged:
        """A page of results, or what stood in its way after everything that may be tried was tried."""
        answer, verdict = await self._once(page)
        left = dict(SECOND_TRIES)
        while True:
            if verdict.outcome in ("region", "network"):
                if page or not self._other_host():
                    return answer, verdict
                answer, verdict = await self._once(page)
                continue
            left[verdict.outcome] = left.get(verdict.outcome, 0) - 1
            if left[verdict.outcome] < 0 or not await self._may_try_again(answer, verdict):
                return answer, verdict
            answer, verdict = await (self._consent(page) if verdict.outcome == "consent" else self._once(page))

    async def _may_try_again(self, answer: PageResponse | None, verdict: PageOutcome) -> bool:
        """After a captcha only when a person has passed it, after a consent page only where buttons can be pressed."""
        if verdict.outcome == "captcha":
            return answer is not None and self.helper is not None and await self.helper(answer, self._first_address())
        return verdict.outcome != "consent" or self.engine.needs_browser

    def _first_address(self) -> str:
        """The page that a person is shown where the answer itself is none."""
        try:
            return self.engine.address(self.hosts.name, self._plain_ask(), self.cursor, 0)
        except KeyError:  # the picture was not uploaded yet
            return self.hosts.name

    async def _once(self, page: int) -> Judged:
        """Uploads or comes back where that is needed, then asks for the page."""
        answer, verdict = await self._enter()
        if verdict.outcome != "ok":
            return answer, verdict
        answer, verdict = await self._fetch(page)
        remembered, self._remembered = self._remembered, False
        if remembered and verdict.outcome in DOUBTFUL:
            self._drop_upload()
            answer, verdict = await self._enter()
            if verdict.outcome == "ok":
                answer, verdict = await self._fetch(page)
        return answer, verdict

    async def _fetch(self, page: int) -> Judged:
        ask = self.ask
        assert ask is not None
        return await self._patiently(lambda: self.engine.fetch(self.web, self.hosts.name, ask, self.cursor, page))

    async def _consent(self, page: int) -> Judged:
        """Presses the known button; the page that it leads to may already be the one that was asked for."""
        try:
            answer = await self.web.submit(self.engine.consent_labels)
        except FetchError:
            answer = None
        verdict = self.engine.classify(answer) if answer else PageOutcome("consent")
        return (answer, verdict) if verdict.outcome in ("ok", "empty", "captcha") else await self._once(page)

    def _other_host(self) -> bool:
        self._tried_hosts.add(self.hosts.name)
        if not self.hosts.next(self._tried_hosts):
            return False
        self._drop_upload()
        return True

    def _drop_upload(self) -> None:
        limits = ("pages", "results", "by")
        kept: dict[str, Any] = {name: self.cursor[name] for name in limits if name in self.cursor}
        self.cursor, self._entered = kept, False

    async def _enter(self) -> Judged:
        """Has the picture uploaded (again where the engine will have forgotten it), or comes back to the site."""
        if self._entered:
            return None, PageOutcome("ok")
        answer, verdict = None, PageOutcome("ok")
        age = time.time() - float(self.cursor.get("uploaded_at") or 0)
        self.ask = self.ask or self._plain_ask()
        if self.query.kind == "image" and age > self.engine.upload_keeps:
            answer, verdict = await self._upload()
        elif self.query.kind == "image":
            self._remembered = True
        if verdict.outcome == "ok" and self.query.next_page:
            answer, verdict = await self._come_back()
        if verdict.outcome == "ok":
            self._entered = True
            self.cursor["host"] = self.hosts.name
            self.store.save_cursor(self.query, self.cursor)
        return answer, verdict

    async def _come_back(self) -> Judged:
        try:
            await self.engine.warm_up(self.web, self.hosts.name)
        except FetchError as error:
            return None, PageOutcome("network", error.reason)
        return None, PageOutcome("ok")

    async def _upload(self) -> Judged:
        path = self.store.context.workspace.to_path(self.query.image_path)
        try:
            ask = self.ask = prepare_upload(path, self.engine.upload_formats, self.engine.upload_limit)
        except (OSError, DecodeError) as error:
            reason = error.reason if isinstance(error, DecodeError) else "missing_file"
            return None, PageOutcome("upload_rejected", reason)
        answer, verdict = None, PageOutcome("upload_rejected")
        for way in range(self.engine.upload_ways):
            answer, verdict = await self._patiently(
                lambda way=way: self.engine.upload(self.web, self.hosts.name, ask, way)  # type: ignore[misc]
            )
            if verdict.outcome != "upload_rejected":
                break
        if answer is not None and verdict.outcome == "ok":
            self.cursor |= self.engine.read_upload(answer)
        return answer, verdict

    async def _patiently(self, request: Callable[[], Awaitable[PageResponse]]) -> Judged:
        """One request, again after a failure of the network or a short wait that the engine asked for."""
        answer, verdict = None, PageOutcome("network")
        for attempt in range(ATTEMPTS):
            try:
                answer = await request()
                verdict = self.engine.classify(answer)
            except FetchError as error:
                answer, verdict = None, PageOutcome("network", error.reason)
            if attempt == ATTEMPTS - 1 or not await self._wait_for_another(answer, verdict, attempt):
                break
        return answer, verdict

    async def _wait_for_another(self, answer: PageResponse | None, verdict: PageOutcome, attempt: int) -> bool:
        """Waits as long as another attempt is worth it; False where it is not."""
        if verdict.outcome == "network":
            await self.web.limiter.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)] if self.patient else 0.2)
            return True
        asked = retry_after(answer.headers) if answer and verdict.outcome == "blocked" else None
        if asked is None or asked > LONGEST_WAIT:
            return False
        # It is written down: a kill while waiting does not forget it.
        self.store.end(self.query, "running", "blocked", verdict.detail, asked)
        self.web.limiter.hold(asked)
        return True
