"""Openverse: openly licensed pictures by words. Strangers may ask for 20 on a page and for 20 pages."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from demo.alterations import extension
from demo.catalog import Picture, digest
from demo.faults import Ask, Fault, Kind, Switchboard
from demo.keys import OPENVERSE_ID, OPENVERSE_SECRET, OPENVERSE_TOKEN
from demo.licences import LICENCES, attribution, creator_of, creator_page, licence_of
from demo.paging import number_in, window
from demo.shapes import Shapes
from demo.site import Site

ENGINE = "openverse"
STRANGERS_ROWS, MEMBERS_ROWS, DEPTH = 20, 500, 20
MOST_WORDS = 200
SOURCES = ("flickr", "wikimedia", "stocksnap", "rawpixel")
CODES = {licence.code for licence in LICENCES} | {"by-nc", "by-nd", "by-nc-sa", "by-nc-nd", "sampling+", "nc-sampling+"}
TYPES = {  # license_type -> what it takes
    "commercial": ("by", "by-sa", "by-nd", "cc0", "pdm"),
    "modification": ("by", "by-sa", "by-nc", "by-nc-sa", "cc0", "pdm"),
    "all": tuple(CODES),
    "all-cc": tuple(CODES - {"pdm"}),
}
SHAPES_OF_PICTURES = {"wide": "horizontal", "tall": "vertical", "square": "square"}
CATEGORIES = {"photograph": "photo", "illustration": "clipart"}


def routes(site: Site) -> list[web.RouteDef]:
    """The search, thumbnails, and the token of those who have registered."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    return [
        web.get("/v1/images/", here.search),
        web.get("/v1/images/{name}/thumb/", here.thumb),
        web.post("/v1/auth_tokens/token/", _token),
    ]


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def search(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        words, page = asked.get("q", ""), number_in(asked, "page", 1)
        ask = Ask(ENGINE, "api", f"text:{words}" if words else "", (page or 1) - 1)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        known = request.headers.get("Authorization")
        if known not in (None, f"Bearer {OPENVERSE_TOKEN}"):
            return web.json_response({"detail": "Invalid token."}, status=401)
        rows = number_in(asked, "page_size", STRANGERS_ROWS)
        if refusal := _refusal(words, page, rows, bool(known)) or _bad_filter(asked):
            return refusal
        assert page is not None and rows is not None
        found = _licensed(self.site.by_words(words, _wanted(asked)), asked)
        shown = window(found, (page - 1) * rows, rows)
        answer = {
            "result_count": len(found),
            "page_count": min(DEPTH, -(-len(found) // rows)),
            "page_size": rows,
            "page": page,
            "results": [result(self.site, picture) for picture in shown],
        }
        answer = verdict.reshape(answer, ask)
        self.site.board.done(ask)
        return web.json_response(answer)

    async def thumb(self, request: web.Request) -> web.StreamResponse:
        verdict = await self.site.board.meet(request, Ask(ENGINE, "thumb"))
        if verdict.response:
            return verdict.response
        return await self.site.thumb(self.site.by_id.get(request.match_info["name"].replace("-", "")))


def _refusal(words: str, page: int | None, rows: int | None, known: bool) -> web.Response | None:
    """Why a request is not served, if so: bad values by 400, too much for a stranger by 401."""
    if len(words) > MOST_WORDS:
        return input_error("q", f"Ensure this field has no more than {MOST_WORDS} characters.")
    if page is None or page < 1:
        return input_error("page", "Ensure this value is greater than or equal to 1.")
    if rows is None or rows < 1 or rows > MEMBERS_ROWS:
        return input_error("page_size", f"Ensure this value is from 1 to {MEMBERS_ROWS}.")
    if rows > STRANGERS_ROWS and not known:
        detail = f"page_size must be between 1 & {STRANGERS_ROWS} for unauthenticated requests."
        return web.json_response({"detail": detail}, status=401)
    if page > DEPTH:
        return input_error("page", f"Pagination depth is limited to {DEPTH} pages.")
    return None


def _bad_filter(asked: Any) -> web.Response | None:
    allowed = {"license": CODES, "license_type": set(TYPES), "aspect_ratio": set(SHAPES_OF_PICTURES)}
    for name, values in allowed.items():
        wrong = [word for word in asked.get(name, "").split(",") if word and word not in values]
        if wrong:
            return input_error(name, f"Invalid value: {wrong[0]}")
    return None


def input_error(field: str, detail: str) -> web.Response:
    body = {
        "error": "InputError",
        "detail": f"Invalid input given for fields. '{field}' -> {detail}",
        "fields": [field],
    }
    return web.json_response(body, status=400)


def _wanted(asked: Any) -> dict[str, str]:
    """The gallery's filters for the parameters."""
    wanted = {
        "isize": asked.get("size", ""),
        "iorient": SHAPES_OF_PICTURES.get(asked.get("aspect_ratio", ""), ""),
        "itype": asked.get("extension", ""),
        "type": CATEGORIES.get(asked.get("category", ""), ""),
    }
    return {name: value for name, value in wanted.items() if value}


def _licensed(found: list[Picture], asked: Any) -> list[Picture]:
    codes = {code for code in asked.get("license", "").split(",") if code}
    for name in filter(None, asked.get("license_type", "").split(",")):
        codes = codes & set(TYPES[name]) if codes else set(TYPES[name])
    chosen = [picture for picture in found if not codes or licence_of(picture).code in codes]
    sources = [source for source in asked.get("source", "").split(",") if source]
    return [picture for picture in chosen if not sources or _source(picture) in sources]


def _source(picture: Picture) -> str:
    return SOURCES[picture.number % len(SOURCES)]


def result(site: Site, picture: Picture) -> dict[str, Any]:
    """One picture with its licence; the creator is not always known, and the byte count is a guess or missing."""
    name, licence = str(uuid.UUID(picture.id)), licence_of(picture)
    here = f"{site.url}/v1/images/{name}/"
    return {
        "id": name,
        "title": picture.title,
        "indexed_on": f"2022-0{1 + picture.number % 9}-27T17:39:48Z",
        "foreign_landing_url": picture.page_url,
        "url": site.link(picture.original),
        "creator": creator_of(picture) or None,
        "creator_url": creator_page(picture) or None,
        "license": licence.code,
        "license_version": licence.version,
        "license_url": licence.url,
        "provider": _source(picture),
        "source": _source(picture),
        "category": "photograph" if "photo" in picture.tags else "illustration",
        "filesize": None if picture.number % 2 else picture.claimed[0] * picture.claimed[1] // 6 + 2048,
        "filetype": extension(picture.alteration.encoding),
        "tags": [{"name": tag, "accuracy": None, "unstable__provider": _source(picture)} for tag in picture.tags],
        "attribution": attribution(picture),
        "fields_matched": ["title"],
        "mature": "censored" in picture.quirks,
        "height": picture.claimed[1],
        "width": picture.claimed[0],
        "thumbnail": here + "thumb/",
        "detail_url": here,
        "related_url": here + "related/",
        "unstable__sensitivity": [],
    }


async def _token(request: web.Request) -> web.Response:
    """The token for a registered client's id and secret."""
    form = await request.post()
    if (form.get("client_id"), form.get("client_secret")) != (OPENVERSE_ID, OPENVERSE_SECRET):
        return web.json_response({"error": "invalid_client"}, status=401)
    answer = {"access_token": OPENVERSE_TOKEN, "scope": "read write groups", "expires_in": 43200}
    return web.json_response(answer | {"token_type": "Bearer"})


async def _busy(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    wait = fault.value or "2"
    detail = f"Request was throttled. Expected available in {wait} seconds."
    return web.json_response({"detail": detail}, status=429, headers={"Retry-After": wait})


async def _blocked(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    detail = "You do not have permission to perform this action."
    return web.json_response({"detail": detail}, status=403, headers={"X-Request-Id": digest("blocked", 16)})


SHAPES = Shapes(("results",), "creator", "width", "url", {"result_count": 0, "page_count": 0})
KINDS: dict[str, Kind] = {
    **SHAPES.kinds("api"),
    "429": Kind(("api",), reply=_busy),
    "blocked": Kind(("api",), reply=_blocked),
}
