"""How Yandex Images misbehaves: captchas, consent, wrong tabs, changed shapes. `demo.faults` is the switchboard."""

from __future__ import annotations

import copy
from typing import Any

from aiohttp import web

from demo import markup
from demo.faults import Ask, Fault, Kind, Switchboard
from demo.gates import SOLVED, blocked, consent, crash, local, way_back

CAPTCHA_HEADER = {"x-yandex-captcha": "captcha"}


def captcha_routes() -> list[web.RouteDef]:
    """The page that a captcha redirects to."""
    return [web.get("/showcaptcha", _show_captcha)]


async def _show_captcha(request: web.Request) -> web.Response:
    page = markup.captcha_page(local(request.query.get("retpath", "/")))
    return markup.respond(page, headers=CAPTCHA_HEADER)


async def _captcha(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """Redirect to /showcaptcha, the decisive sign."""
    if SOLVED in request.cookies:
        return None
    location = "/showcaptcha?retpath=" + way_back(request)
    return web.Response(status=302, headers={"Location": location, **CAPTCHA_HEADER})


async def _captcha_page(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A captcha as HTTP 200 at the very address that was asked for, without the header."""
    return None if SOLVED in request.cookies else markup.respond(markup.captcha_page(local(request.path_qs)))


async def _captcha_json(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response | None:
    """A captcha as JSON, which was never recorded but is said to exist."""
    answer = {
        "type": "captcha",
        "captcha": {"captcha-page": "/showcaptcha?retpath=" + way_back(request)},
    }
    return None if SOLVED in request.cookies else web.json_response(answer)


async def _region(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    return markup.respond(
        markup.message_page("Yandex Images is under construction", "This service is not open in your region yet.")
    )


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
    "consent": Kind(("page",), reply=consent),
    "region": Kind(("page",), reply=_region),
    "blocked": Kind(BOTH, reply=blocked),
    "crash": Kind(("page",), reply=crash),
    "upload_rejected": Kind(("upload",), reply=_upload_rejected),
    "changed_shape": Kind(BOTH, shape=_changed_shape),
    "drift": Kind(BOTH, shape=_drift),
    "nulls": Kind(BOTH, shape=_nulls),
    "empty": Kind(BOTH, shape=_empty),
    "wrong_tab": Kind(("page",), shape=_wrong_tab),
    "no_next": Kind(BOTH, shape=_no_next),
}
