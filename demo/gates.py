"""Where a person may be sent before the results, the buttons there, and the answers that many protocols share."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from demo import markup
from demo.faults import Ask, Fault, Switchboard

SOLVED, AGREED = "spravka", "gdpr"  # cookies that a person's click sets; the fault then lets requests pass

# V8 ends the process when an array is asked for that is longer than any may be: 134 million letters are one more. That
# takes half a second and no more memory than the letters.
CRASH_SCRIPT = '<script>"x".repeat(2 ** 27 + 64).split("")</script>'


def gate_routes() -> list[web.RouteDef]:
    """The buttons of the captcha and of the cookie notice."""
    return [web.post("/checkcaptcha", _solve), web.post("/agree", _agree)]


def local(path: str) -> str:
    """A path on this site, whatever was asked for."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def way_back(request: web.Request) -> str:
    """The address that was asked for, to be carried in another one's query."""
    return quote(request.path_qs, safe="")


async def _solve(request: web.Request) -> web.Response:
    return _go_back(request, SOLVED)


async def _agree(request: web.Request) -> web.Response:
    return _go_back(request, AGREED)


def _go_back(request: web.Request, cookie: str) -> web.Response:
    response = web.Response(status=302, headers={"Location": local(request.query.get("retpath", "/"))})
    response.set_cookie(cookie, "1", httponly=True, samesite="Lax")
    return response


async def consent(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A cookie notice in place of the page."""
    return None if AGREED in request.cookies else markup.respond(markup.consent_page(local(request.path_qs)))


async def blocked(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    return markup.respond(markup.message_page("403", "Requests from your network are refused."), 403)


async def plain_captcha(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A check for robots at the very address that was asked for, HTTP 200, without any engine's own marks."""
    if SOLVED in request.cookies:
        return None
    return markup.respond(markup.plain_captcha_page(local(request.path_qs)))


async def crash(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """A page whose script brings down the process that shows it, and nothing else of a browser."""
    return markup.respond(f"<!doctype html><html><head><title>Searching</title>{CRASH_SCRIPT}</head></html>")
