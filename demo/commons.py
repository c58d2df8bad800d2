"""Wikimedia Commons: the MediaWiki API's search for files, with sizes, checksums and licences.

Answers in both format versions, `continue.gsroffset` until the end, and a 403 for those who do not say who they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from typing import Any
from urllib.parse import quote

from aiohttp import web

from demo.alterations import MIME, extension
from demo.catalog import Picture, digest, shrunk
from demo.faults import Ask, Fault, Kind, Switchboard
from demo.gates import blocked
from demo.licences import attribution, creator_of, licence_of
from demo.paging import whole, window
from demo.shapes import Shapes
from demo.site import Site

ENGINE = "commons"
WIKI = "https://commons.wikimedia.org"
MOST_ROWS = 500
FIRST_ID = 81_000_000
PUBLIC_DOMAIN = "P6216=Q19652"  # "copyright status: public domain"
POLICY = "Please respect our robot policy: set a user agent that names your tool and a contact.\n"


def routes(site: Site) -> list[web.RouteDef]:
    """The API and scaled copies of its files."""
    site.board.register(ENGINE, KINDS)
    here = _Handlers(site)
    scaled = r"/wikipedia/commons/thumb/{folder}/{name:[0-9a-f]{32}}/{width:\d+}px.jpg"
    return [web.get("/w/api.php", here.api), web.get(scaled, here.thumb)]


class _Handlers:
    """The route handlers; all they know is the site."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def api(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        words, narrowed = parted(asked.get("gsrsearch", ""))
        rows, offset = whole(asked, "gsrlimit", 10, 1, MOST_ROWS), whole(asked, "gsroffset", 0)
        ask = Ask(ENGINE, "api", f"text:{words}" if words else "", offset // rows)
        verdict = await self.site.board.meet(request, ask)
        if verdict.response:
            return verdict.response
        if not has_contact(request.headers.get("User-Agent", "")):
            return web.Response(status=403, text=POLICY)
        if wrong := _wrong(asked, words):
            return refuse(*wrong)
        found = [
            picture for picture in self.site.by_words(words, {}) if all(_passes(picture, *pair) for pair in narrowed)
        ]
        shown = window(found, offset, rows)
        pages = await asyncio.gather(*(self._page(picture, offset + n + 1, asked) for n, picture in enumerate(shown)))
        version = 2 if asked.get("formatversion") == "2" else 1
        answer: dict[str, Any] = {"batchcomplete": True if version == 2 else ""}
        if offset + rows < len(found):
            answer["continue"] = {"gsroffset": offset + rows, "continue": "gsroffset||"}
        answer = verdict.reshape(answer | {"query": {"pages": list(pages)}}, ask)
        self.site.board.done(ask)
        return web.json_response(_versioned(answer, version))

    async def thumb(self, request: web.Request) -> web.StreamResponse:
        verdict = await self.site.board.meet(request, Ask(ENGINE, "thumb"))
        if verdict.response:
            return verdict.response
        return await self.site.thumb(self.site.by_id.get(request.match_info["name"]))

    async def _page(self, picture: Picture, index: int, asked: Any) -> dict[str, Any]:
        """One file's page at its rank, with what `iiprop` asks for."""
        title = f"File:{_name(picture)}"
        page: dict[str, Any] = {
            "pageid": FIRST_ID + picture.number,
            "ns": 6,
            "title": title,
            "index": index,
            "imagerepository": "local",
        }
        if "info" in asked.get("prop", "").split("|"):
            url = f"{WIKI}/wiki/{quote(title.replace(' ', '_'))}"
            page |= {"contentmodel": "wikitext", "pagelanguage": "en", "touched": "2026-10-01T00:00:00Z"}
            page |= {"fullurl": url, "canonicalurl": url} if asked.get("inprop") == "url" else {}
        return page | {"imageinfo": [await self._info(picture, asked)]}

    async def _info(self, picture: Picture, asked: Any) -> dict[str, Any]:
        wanted, title = (
            set(asked.get("iiprop", "timestamp|user").split("|")),
            f"File:{_name(picture)}".replace(" ", "_"),
        )
        info: dict[str, Any] = {}
        if "url" in wanted:
            info |= {
                "url": self.site.link(picture.original),
                "descriptionurl": f"{WIKI}/wiki/{quote(title)}",
                "descriptionshorturl": f"{WIKI}/w/index.php?curid={FIRST_ID + picture.number}",
            }
            if side := whole(asked, "iiurlwidth", 0):
                info |= self._scaled(picture, side)
        if wanted & {"size", "sha1"}:  # True ones: who verifies a download by them must not be told a lie.
            body = await self.site.darkroom.original(picture)
            info |= {"size": len(body), "width": picture.size[0], "height": picture.size[1]} if "size" in wanted else {}
            info |= {"sha1": hashlib.sha1(body).hexdigest()} if "sha1" in wanted else {}
        given = {
            "mime": MIME[extension(picture.alteration.encoding)],
            "mediatype": "BITMAP",
            "timestamp": f"20{10 + picture.number % 14}-0{1 + picture.number % 9}-01T00:38:47Z",
            "user": creator_of(picture) or "Uploader bot",
            "extmetadata": metadata(picture),
        }
        return info | {name: value for name, value in given.items() if name in wanted}

    def _scaled(self, picture: Picture, side: int) -> dict[str, Any]:
        width, height = shrunk(picture.size, 320)
        path = f"/wikipedia/commons/thumb/{picture.id[0]}/{picture.id}/{min(side, width)}px.jpg"
        return {"thumburl": self.site.url + path, "thumbwidth": width, "thumbheight": height}


def has_contact(agent: str) -> bool:
    """Whether a User-Agent names an address of mail or of a page."""
    return bool(re.search(r"[\w.+-]+@[\w-]+\.\w+|https?://\S+", agent))


def parted(search: str) -> tuple[str, list[tuple[str, str]]]:
    """The words of a search, and what narrows it, such as `filemime:image/png` or `fileres:>1000`."""
    narrowed = re.findall(r"(?<!\S)([a-z]+):(\S+)", search)
    return " ".join(re.sub(r"(?<!\S)-?[a-z]+:\S+", " ", search).split()), narrowed


def _passes(picture: Picture, name: str, value: str) -> bool:
    """Whether a file is within one narrowing; those nobody knows let all pass."""
    if name == "filemime":
        return MIME[extension(picture.alteration.encoding)].endswith(value)
    if name == "filetype":
        return value == "bitmap" or "drawing" in picture.tags
    if name == "haswbstatement":
        return value != PUBLIC_DOMAIN or not licence_of(picture).attribution_required
    if name == "fileres" and (asked := re.fullmatch(r"([<>]?)(\d+)(?:,(\d+))?", value)):
        side, low = math.sqrt(picture.size[0] * picture.size[1]), int(asked[2])
        if asked[1]:
            return side < low if asked[1] == "<" else side > low
        return low <= side <= int(asked[3] or low)
    return True


def _wrong(asked: Any, words: str) -> tuple[str, str] | None:
    if asked.get("action") != "query" or asked.get("format") != "json":
        return "badvalue", "This gallery knows action=query and format=json."
    if asked.get("generator") != "search" or asked.get("gsrnamespace") != "6":
        return "badvalue", "This gallery knows generator=search in gsrnamespace=6."
    return None if words else ("missingparam", 'The "gsrsearch" parameter must be set.')


def refuse(code: str, info: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An error as MediaWiki tells it: with HTTP 200 and a header."""
    body = {"error": {"code": code, "info": info, "*": f"See {WIKI}/w/api.php for API usage."}, "servedby": "gallery"}
    return web.json_response(body, status=status, headers={"MediaWiki-API-Error": code, **(headers or {})})


def _versioned(answer: dict[str, Any], version: int) -> dict[str, Any]:
    """The pages as a list (version 2) or a map by their ids (version 1); without a query where nothing was found."""
    query = answer.get("query", {})
    if "pages" not in query:
        return answer
    if not query["pages"]:
        return {"batchcomplete": answer["batchcomplete"]}
    if version == 1:
        ordered = sorted(query["pages"], key=lambda page: int(page["pageid"]))
        return answer | {"query": {"pages": {str(page["pageid"]): page for page in ordered}}}
    return answer


def _name(picture: Picture) -> str:
    title = re.sub(r"[#<>\[\]{}|/:&]", "", picture.title).strip()
    return f"{title} {picture.number:04d}.{extension(picture.alteration.encoding)}"


def metadata(picture: Picture) -> dict[str, Any]:
    """The `extmetadata` of a file: mostly text, some of it HTML, one number."""
    licence, creator = licence_of(picture), creator_of(picture)
    user = quote(creator.replace(" ", "_"))
    artist = (
        f'<a href="//commons.wikimedia.org/wiki/User:{user}" title="User:{creator}">{creator}</a>' if creator else ""
    )
    values: dict[str, Any] = {
        "CommonsMetadataExtension": 1.2,
        "ObjectName": picture.title,
        "ImageDescription": f"<p>{', '.join(picture.tags)}</p>",
        "DateTimeOriginal": f"20{10 + picture.number % 14}-09-25 16:23:02",
        "Categories": "|".join(tag.capitalize() for tag in picture.tags),
        "Artist": artist or "Unknown author",
        "Credit": '<span class="int-own-work" lang="en">Own work</span>',
        "LicenseShortName": licence.name,
        "UsageTerms": licence.name,
        "AttributionRequired": "true" if licence.attribution_required else "false",
        "Copyrighted": "True" if licence.attribution_required else "False",
        "Restrictions": "",
    }
    values["License"] = f"cc-{licence.code}-{licence.version}" if licence.attribution_required else licence.code
    if licence.code != "pdm":  # Files in the public domain have no deed.
        values["LicenseUrl"] = licence.url.rstrip("/")
    if licence.attribution_required and picture.number % 2:
        values["Attribution"] = attribution(picture)
    return {name: {"value": value, "source": "commons-desc-page", "hidden": ""} for name, value in values.items()}


async def _busy(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    info = "You've exceeded your rate limit. Please wait some time and try again."
    return refuse("ratelimited", info, 429, {"Retry-After": fault.value or "2"})


async def _lagged(request: web.Request, fault: Fault, ask: Ask, board: Switchboard) -> web.Response:
    """Too busy to serve robots: an error with HTTP 200 and a time to wait."""
    lag = {"X-Database-Lag": "7", "Retry-After": fault.value or "5"}
    return refuse("maxlag", f"Waiting for {digest('db', 6)}: 7 seconds lagged.", 200, lag)


SHAPES = Shapes(("query", "pages"), "imagerepository", "index", "imageinfo", {})
KINDS: dict[str, Kind] = {
    **SHAPES.kinds("api"),
    "429": Kind(("api",), reply=_busy),
    "lagged": Kind(("api",), reply=_lagged),
    "blocked": Kind(("api",), reply=blocked),
}
