"""The switchboard of misbehaviour: what shall go wrong, on which route and page, how many times.

A fault is written `KIND[=VALUE][@WHERE][xCOUNT]`:

    captcha              every result page ends in a captcha
    captcha@2            result page 2 does (pages count from 0)
    429=5@xhr:1x2        the XHR for page 1 answers 429 with Retry-After: 5, twice, then works
    500@uploadx1         the first upload fails

WHERE is a page, a route (`upload`, `page`, `xhr`, `api`, `picture`, `thumb`), a protocol's route (`yandex/xhr`), all
routes of a protocol (`bing/`), or any of these and a page: `xhr:2`, `baidu/:1`.

Kinds come in two sorts. A *reply* answers instead of the route; a *shape* changes what the route was going to say. The
general replies stand here; each protocol registers its own replies and shapes under its name, and they win over these.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

RESULT_ROUTES = ("page", "xhr", "api")  # where a fault strikes when its kind and WHERE say nothing else
LONG = 3600.0  # seconds a hanging answer takes unless the client or the site gives up first
LOOK = 0.05  # seconds between two looks at whether the fault that holds an answer back is still on


class FaultError(ValueError):
    """A fault that cannot be understood; the message is one sentence for a person."""


@dataclass
class Fault:
    """One switched-on misbehaviour; `left` counts down, None means for ever."""

    kind: str
    value: str = ""
    engine: str = ""
    route: str = ""
    page: int | None = None
    left: int | None = None
    fired: int = 0


@dataclass(frozen=True)
class Ask:
    """Who is asking for what: the protocol, its route, the query's own id and the page."""

    engine: str
    route: str
    query: str = ""
    page: int | None = None


Reply = Callable[[web.Request, Fault, Ask, "Switchboard"], Awaitable["web.StreamResponse | None"]]
Shape = Callable[[dict[str, Any], Fault, Ask], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A sort of fault: where it strikes by default, and either a reply or a shape."""

    routes: tuple[str, ...]
    reply: Reply | None = None
    shape: Shape | None = None
    delays: bool = False  # the reply lets the request pass, and has done its work all the same


@dataclass(frozen=True)
class Verdict:
    """What the switchboard decided: an answer to give at once, or shapes to put the honest answer into."""

    response: web.StreamResponse | None = None
    shapes: tuple[tuple[Shape, Fault], ...] = ()

    def has(self, kind: str) -> bool:
        """Whether a shape of that kind is on, for those that are about more than the payload."""
        return any(fault.kind == kind for _, fault in self.shapes)

    def reshape(self, payload: dict[str, Any], ask: Ask) -> dict[str, Any]:
        for shape, fault in self.shapes:
            payload = shape(payload, fault, ask)
        return payload


class Switchboard:
    """The faults that are on, and the count of everything asked and served."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], Kind] = {("", name): kind for name, kind in GENERAL.items()}
        self.faults: list[Fault] = []
        self.asked: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.closing = asyncio.Event()

    def register(self, engine: str, kinds: dict[str, Kind]) -> None:
        """Add a protocol's own kinds."""
        self.kinds.update({(engine, name): kind for name, kind in kinds.items()})

    def set(self, spec: str) -> Fault:
        """Switch one fault on; raises FaultError for a kind that no protocol knows."""
        fault = parse_fault(spec)
        known = sorted({name for _, name in self.kinds})
        if fault.kind not in known and not fault.kind.isdigit():
            raise FaultError(
                f"no fault is called {fault.kind!r}; choose from {', '.join(known)} or an HTTP status such as 429"
            )
        self.faults.append(fault)
        return fault

    async def meet(self, request: web.Request, ask: Ask) -> Verdict:
        """Count the request and let every matching fault have its say; the first reply wins."""
        self.asked[label(ask)] += 1
        shapes = []
        for fault in self.faults:
            kind = self._kind(fault, ask)
            if kind is None or not strikes(fault, kind, ask):
                continue
            if kind.shape:
                shapes.append((kind.shape, fault))
            elif kind.reply:
                spend(fault)  # at once: an answer that hangs takes its time
                response = await kind.reply(request, fault, ask, self)
                if response is not None:
                    return Verdict(response)
                if not kind.delays:  # The fault let the request pass, for instance to a solved captcha.
                    restore(fault)
                continue
            spend(fault)
        return Verdict(shapes=tuple(shapes))

    def done(self, ask: Ask) -> None:
        """Count an honest answer."""
        self.served[label(ask)] += 1

    def report(self) -> dict[str, Any]:
        """Counters and faults as plain values for JSON."""
        asked, served = dict(self.asked), dict(self.served)  # copied first: another thread may look while we count
        routes: Counter[str] = Counter()
        for name, count in asked.items():
            routes[name.split(" ")[0]] += count
        return {
            "routes": dict(sorted(routes.items())),
            "asked": dict(sorted(asked.items())),
            "served": dict(sorted(served.items())),
            "faults": [asdict(fault) for fault in self.faults],
        }

    def _kind(self, fault: Fault, ask: Ask) -> Kind | None:
        own = self.kinds.get((ask.engine, fault.kind)) or self.kinds.get(("", fault.kind))
        return own or (Kind(RESULT_ROUTES, reply=_status) if fault.kind.isdigit() else None)


def label(ask: Ask) -> str:
    """The name a request is counted under: `engine/route`, then the query and the page where there are any."""
    parts = [f"{ask.engine}/{ask.route}"]
    if ask.query:
        parts.append(ask.query.replace(" ", "+"))
    if ask.page is not None:
        parts.append(f"p={ask.page}")
    return " ".join(parts)


def strikes(fault: Fault, kind: Kind, ask: Ask) -> bool:
    """Whether a fault is meant for this request."""
    if fault.left == 0 or fault.engine not in ("", ask.engine):
        return False
    if fault.route != ask.route and (fault.route or ask.route not in kind.routes):
        return False
    return fault.page is None or fault.page == ask.page


def spend(fault: Fault) -> None:
    fault.fired += 1
    if fault.left is not None:
        fault.left -= 1


def restore(fault: Fault) -> None:
    """Takes a count back."""
    fault.fired -= 1
    if fault.left is not None:
        fault.left += 1


def parse_fault(spec: str) -> Fault:
    """`KIND[=VALUE][@WHERE][xCOUNT]` as a Fault; raises FaultError."""
    rest, left = spec.strip(), None
    if counted := re.search(r"x(\d+)$", rest):
        rest, left = rest[: counted.start()], int(counted.group(1))
    rest, _, where = rest.partition("@")
    kind, _, value = rest.partition("=")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", kind) or (kind.isdigit() and not 400 <= int(kind) <= 599):
        raise FaultError(
            f"{spec!r} is no fault; write KIND[=VALUE][@WHERE][xCOUNT], for instance captcha@2x1 or 429=5@xhr"
        )
    fault = Fault(kind, value, left=left)
    for part in filter(None, where.split(":")):
        if part.isdigit():
            fault.page = int(part)
        else:
            fault.engine, _, fault.route = part.rpartition("/")
    return fault


def seconds(fault: Fault, default: float) -> float:
    try:
        return float(fault.value) if fault.value else default
    except ValueError:
        return default


async def _status(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.StreamResponse:
    """Any HTTP error; 429 and 503 carry Retry-After in seconds."""
    status = int(fault.kind)
    headers = {"Retry-After": fault.value or "2"} if status in (429, 503) else {}
    return web.Response(
        status=status,
        text=f"<html><body><h1>{status}</h1></body></html>",
        content_type="text/html",
        headers=headers,
    )


async def _hang(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.StreamResponse:
    """Accept the request and say nothing until the client or the site gives up."""
    await _wait(board, seconds(fault, LONG))
    return web.Response(status=504, text="")


async def _slow(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> None:
    """Answer honestly, but later (a second, or VALUE), or as soon as the fault is cleared."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds(fault, 1.0)
    while not board.closing.is_set() and any(fault is one for one in board.faults) and (left := end - loop.time()) > 0:
        await _wait(board, min(LOOK, left))


async def _wait(board: Switchboard, limit: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(board.closing.wait(), limit)


async def _disconnect(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.StreamResponse:
    """Close the connection without a word."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)


async def _truncated(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.StreamResponse:
    """Promise five thousand bytes, send a few and hang up."""
    if ask.route == "page":
        return await send_part(request, b"<!doctype html><html><head><title>Sear", 5000, "text/html")
    part = b'{"cnt":"/images/search","blocks":[{"name":{"blo' if ask.route == "xhr" else b'{"page":1,"data":[{"ti'
    return await send_part(request, part, 5000, "application/json")


async def not_json(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.StreamResponse:
    """A page of another kind in place of the data."""
    return web.Response(text="<html><body>Service is being updated</body></html>", content_type="text/html")


async def send_part(
    request: web.Request, part: bytes, promised: int, mime: str, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """Send `part` under a Content-Length of `promised` bytes, then cut the connection."""
    response = web.StreamResponse(headers={"Content-Type": mime, "Content-Length": str(promised), **(headers or {})})
    response.content_length = promised
    await response.prepare(request)
    await response.write(part)
    if request.transport:
        request.transport.close()  # not abort(): what was written must still arrive
    return response


GENERAL: dict[str, Kind] = {
    "hang": Kind(RESULT_ROUTES, reply=_hang),
    "slow": Kind(RESULT_ROUTES, reply=_slow, delays=True),
    "disconnect": Kind(RESULT_ROUTES, reply=_disconnect),
    "truncated": Kind(RESULT_ROUTES, reply=_truncated),
    "not_json": Kind(("xhr", "api"), reply=not_json),
}
