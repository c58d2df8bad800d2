"""How Yandex Images misbehaves: captchas, consent, wrong tabs, changed shapes. `demo.faults` is the switchboard."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import quote

from aiohttp import web

from demo import markup
from demo.faults import Ask, Fault, Kind, Switchboard

CAPTCHA_HEADER = {"x-yandex-captcha": "captcha"}
SOLVED, AGREED = "spravka", "gdpr"  # cookies that a person's click sets; the fault then lets requests pass


def gate_routes() -> list[web.RouteDef]:
    """The pages a person may be sent to, and the buttons on them."""
    return [
        web.get("/showcaptcha", _show_captcha),
        web.post("/checkcaptcha", _solve),
        web.post("/agree", _agree),
    ]


async def _show_captcha(request: web.Request) -> web.Response:
    page = markup.captcha_page(_local(request.query.get("retpath", "/")))
    return markup.respond(page, headers=CAPTCHA_HEADER)


async def _solve(request: web.Request) -> web.Response:
    return _go_back(request, SOLVED)


async def _agree(request: web.Request) -> web.Response:
    return _go_back(request, AGREED)


def _go_back(request: web.Request, cookie: str) -> web.Response:
    response = web.Response(status=302, headers={"Location": _local(request.query.get("retpath", "/"))})
    response.set_cookie(cookie, "1", httponly=True, samesite="Lax")
    return response


def _local(path: str) -> str:
    """A path on this site, whatever was asked for."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


async def _captcha(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """Redirect to /showcaptcha, the decisive sign."""
    if SOLVED in request.cookies:
        return None
    location = "/showcaptcha?retpath=" + quote(request.path_qs, safe="")
    return web.Response(status=302, headers={"Location": location, **CAPTCHA_HEADER})


async def _captcha_page(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A captcha as HTTP 200 at the very address that was asked for, without the header."""
    return None if SOLVED in request.cookies else markup.respond(markup.captcha_page(_local(request.path_qs)))


async def _captcha_json(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A captcha as JSON, which was never recorded but is said to exist."""
    answer = {
        "type": "captcha",
        "captcha": {"captcha-page": "/showcaptcha?retpath=" + quote(request.path_qs, safe="")},
    }
    return None if SOLVED in request.cookies else web.json_response(answer)


async def _consent(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    return None if AGREED in request.cookies else markup.respond(markup.consent_page(_local(request.path_qs)))


async def _region(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    return markup.respond(
        markup.message_page("Yandex Images is under construction", "This service is not open in your region yet.")
    )


async def _blocked(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    return markup.respond(markup.message_page("403", "Requests from your network are refused."), 403)


async def _upload_rejected(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """The upload is refused: by an HTTP 400, or (VALUE `soft`) by an answer without an id."""
    await request.read()
    if fault.value == "soft":
        return web.json_response(
            {
                "cnt": "/images/touch/search",
                "blocks": [{"name": {"block": "cbir-uploader__get-cbir-id"}, "params": {}}],
            }
        )
    return web.json_response({"error": "Incorrect avatar size", "blocks": []}, status=400)


def _changed_shape(state: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
    """The engine was rebuilt overnight: the list has another name and another form."""
    state = dict(state)
    if "serpList" in state:
        items = state.pop("serpList")["items"]
        state["feed"] = {
            "cards": [{"cardId": key, "media": {"src": items["entities"][key]["origUrl"]}} for key in items["keys"]]
        }
    return state


def _drift(state: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
    """Small changes: an unknown key in every record, an expected one gone, numbers as strings."""
    state = copy.deepcopy(state)
    for record in _records(state):
        record["aiBadge"] = {"kind": "none"}
        record.pop("freshnessCounter", None)
        record["origWidth"] = str(record["origWidth"])
    return state


def _nulls(state: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
    """Every second record lost its original address, its snippet and its viewer data."""
    state = copy.deepcopy(state)
    for record in _records(state)[::2]:
        record |= {"origUrl": None, "snippet": None, "viewerData": None}
    return state


def _empty(state: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
    """Nothing found, honestly."""
    return state | {"serpList": {"items": {"keys": [], "entities": {}}, "navi": {}}}


def _wrong_tab(state: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
    """The tab "about this picture", which has no list."""
    state = {key: value for key, value in state.items() if key != "serpList"}
    return state | {"cbirTags": {"tags": []}, "cbirOtherSizes": {"sizes": []}}


def _no_next(state: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
    """The list says that it ends here."""
    return state | {"serpList": state["serpList"] | {"navi": {}}} if "serpList" in state else state


def _records(state: dict[str, Any]) -> list[dict[str, Any]]:
    return list(state.get("serpList", {}).get("items", {}).get("entities", {}).values())


BOTH = ("page", "xhr")
KINDS: dict[str, Kind] = {
    "captcha": Kind(BOTH, reply=_captcha),
    "captcha_page": Kind(BOTH, reply=_captcha_page),
    "captcha_json": Kind(("xhr",), reply=_captcha_json),
    "consent": Kind(("page",), reply=_consent),
    "region": Kind(("page",), reply=_region),
    "blocked": Kind(BOTH, reply=_blocked),
    "upload_rejected": Kind(("upload",), reply=_upload_rejected),
    "changed_shape": Kind(BOTH, shape=_changed_shape),
    "drift": Kind(BOTH, shape=_drift),
    "nulls": Kind(BOTH, shape=_nulls),
    "empty": Kind(BOTH, shape=_empty),
    "wrong_tab": Kind(("page",), shape=_wrong_tab),
    "no_next": Kind(BOTH, shape=_no_next),
}
