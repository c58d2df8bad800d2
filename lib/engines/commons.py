"""Wikimedia Commons: free files with licence, author, and the SHA-1 of every file.

It is asked through the MediaWiki API: `generator=search` with `imageinfo` and its licence metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at
from lib.engines.base import (
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    asked,
    count_in,
    judge_json,
    nothing,
    query_url,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    distinct,
    fact,
    filled,
    link,
    load_object,
    mapping,
    objects,
    plain,
    text,
    whole,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord
from lib.text import known

PATH = "/w/api.php"
FILE_NAMESPACE = "6"
PREVIEW_WIDTH = "640"  # pixels
PARAMS = {
    "action": "query",
    "format": "json",
    "formatversion": "2",
    "generator": "search",
    "gsrnamespace": FILE_NAMESPACE,
    "prop": "info|imageinfo",
    "inprop": "url",
    "iiprop": "url|size|mime|sha1|extmetadata|timestamp|user|mediatype",
    "iiurlwidth": PREVIEW_WIDTH,
}
BUSY = frozenset({"maxlag", "ratelimited", "readonly"})  # errors that mean "later", with status 200

KNOWN = frozenset(
    "pageid ns title index imagerepository imageinfo contentmodel pagelanguage pagelanguagehtmlcode"
    " pagelanguagedir touched lastrevid length fullurl editurl canonicalurl".split()
)
EXPECTED = frozenset({"pageid", "title", "imageinfo"})
MOST_CATEGORIES = 50
_HREF = re.compile(r"""href\s*=\s*["']([^"']+)["']""", re.IGNORECASE)


class Commons(Engine):
    """The engine `commons`."""

    name: ClassVar[str] = "commons"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://commons.wikimedia.org",)
    interval: ClassVar[float] = 1.0  # one request after the other is what its etiquette asks for
    page_size: ClassVar[int] = 50  # the most without a bot's rights
    most_pages: ClassVar[int] = 200  # its search ends at 10,000 results
    needs_contact: ClassVar[bool] = True  # a client without one is answered with 403
    # Sizes are the square root of the area in pixels, as its search counts them.
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {
            "small": "gsrsearch=fileres:<500",
            "medium": "gsrsearch=fileres:500,1000",
            "large": "gsrsearch=fileres:>1000",
            "huge": "gsrsearch=fileres:>2000",
        },
        "type": {
            "photo": "gsrsearch=filemime:image/jpeg",
            "drawing": "gsrsearch=filetype:drawing",
            "clipart": "gsrsearch=filetype:drawing",
            "gif": "gsrsearch=filemime:image/gif",
        },
        # Everything on Commons may be changed and sold; the rest is a statement about the file.
        "licence": {"commercial": "", "modify": "", "public-domain": "gsrsearch=haswbstatement:P6216=Q19652"},
    }
    kept_headers: ClassVar[tuple[str, ...]] = ("content-type", "date", "retry-after", "mediawiki-api-error")
    terms: ClassVar[str] = (
        "Wikimedia's user-agent policy asks every client for a name and a contact (set GLEANER_CONTACT) and for one "
        "request at a time; every file keeps the licence and the author that are stored with it."
    )

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        narrowed = self.filter_params(request.filters).get("gsrsearch", "")
        kind = "" if "filetype:" in narrowed else "filetype:bitmap"
        words = " ".join(filter(None, (kind, narrowed, request.text)))
        place = {"gsrlimit": str(self.page_size), "gsroffset": str(page * self.page_size)}
        return query_url(host, PATH, PARAMS | {"gsrsearch": words} | place)

    def classify(self, response: PageResponse) -> PageOutcome:
        found = judge_json(response)
        if isinstance(found, PageOutcome):
            return found
        if error := mapping(found.get("error")):
            code = text(error.get("code")) or "error"
            return PageOutcome("blocked" if code in BUSY else "parse_error", code[:60])
        if response.status != 200:
            return PageOutcome("parse_error", f"http_{response.status}")
        # Where nothing was found there is no `query` at all, only the word that this was everything.
        pages = mapping(found["query"]).get("pages") if "query" in found else [] if "batchcomplete" in found else None
        if not isinstance(pages, (list, dict)):
            return PageOutcome("parse_error", "no_pages")
        if pages:
            return PageOutcome("ok")
        offset = asked(response, "gsroffset", 0)
        promised = count_in(mapping(mapping(found.get("query")).get("searchinfo")), "totalhits")
        following = count_in(mapping(found.get("continue")), "gsroffset")  # where it would have gone on
        return nothing(offset == 0, max(promised, following), offset)


def parse_api(body: bytes) -> ParsedPage:
    """One response; `next_url` holds the offset to go on with. Raises ParseError: `not_json`, `refused: …`."""
    response, drift = load_object(body)
    if error := mapping(response.get("error")):
        raise ParseError(f"refused: {(text(error.get('code')) or text(error.get('info')))[:120]}")
    pages = mapping(response.get("query")).get("pages")
    found = objects(list(pages.values()) if isinstance(pages, dict) else pages)
    if pages is None and "batchcomplete" not in response and "continue" not in response:
        raise ParseError("no_data")
    ordered = sorted(enumerate(found), key=lambda pair: (whole(pair[1].get("index")) or 10**9, pair[0]))
    pictures = PagePictures(drift)
    for _, page in ordered:
        if (record := _read_page(page, drift)) is not None:
            pictures.add(record)
        else:
            pictures.skip("no_file")
    offset = whole(mapping(response.get("continue")).get("gsroffset"))
    following = f"gsroffset={offset}" if offset else ""
    return ParsedPage(pictures.in_order(), following, pictures.skipped, drift.report())


def _read_page(page: Mapping[str, Any], drift: Drift) -> ImageRecord | None:
    """One file. A page's number names it for good, also after it was renamed.

    Who uploaded a file need not have made it, and its `Credit` is its source: both stay among the extras.
    """
    info = next(iter(objects(page.get("imageinfo"))), None)
    engine_id = text(page.get("pageid"))
    if info is None or not engine_id:
        return None
    page_url = link(info.get("descriptionurl")) or link(page.get("fullurl"))
    mime = text(info.get("mime")).lower()
    is_picture = not mime or mime.startswith("image/")  # a document or a film has a picture as its preview only
    original = address(info.get("url")) if is_picture else ""
    original = "" if is_page(original, page_url) else original
    drift.note("page", page, KNOWN, EXPECTED, no_original=not original)
    meta = mapping(info.get("extmetadata"))
    artist = text(mapping(meta.get("Artist")).get("value"))
    width, height = (whole(info.get(side)) if is_picture else None for side in ("width", "height"))
    size = whole(info.get("size")) if is_picture else None
    sides = whole(info.get("thumbwidth")), whole(info.get("thumbheight"))
    return ImageRecord(
        engine_id=engine_id,
        rank=(whole(page.get("index")) or 1) - 1,
        page_url=page_url,
        title=plain(page.get("title")).removeprefix("File:").rpartition(".")[0] or plain(page.get("title")),
        snippet=_meta(meta, "ImageDescription"),
        domain=host_of(page_url) or host_of(original),
        width=width,
        height=height,
        bytes=size,
        format=mime.partition("/")[2].partition("+")[0],
        published_at=_fact(meta, "DateTimeOriginal") or text(info.get("timestamp")),
        creator=fact(artist),
        creator_url=link(href[1]) if fact(artist) and (href := _HREF.search(artist)) else "",
        license=_fact(meta, "LicenseShortName") or _fact(meta, "UsageTerms") or _fact(meta, "License"),
        license_url=link(text(mapping(meta.get("LicenseUrl")).get("value"))),
        attribution=_fact(meta, "Attribution"),
        extra=_extra(info, meta),
        variants=distinct(
            [
                VariantRecord("original", original, *sides_at(original, width, height), size, page_url),
                VariantRecord("preview", address(info.get("thumburl")), *sides, None, page_url),
            ]
        ),
    )


def _extra(info: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    categories = [part for part in _meta(meta, "Categories").split("|") if part][:MOST_CATEGORIES]
    return filled(
        sha1=text(info.get("sha1")),
        categories=categories,
        credit=_fact(meta, "Credit"),
        restrictions=_fact(meta, "Restrictions"),
        attribution_required=_meta(meta, "AttributionRequired").lower() == "true",
        uploader=text(info.get("user")),
    )


def _fact(meta: Mapping[str, Any], name: str) -> str:
    """A value of `extmetadata` that says something."""
    return known(_meta(meta, name))


def _meta(meta: Mapping[str, Any], name: str) -> str:
    """A value of `extmetadata` without markup; values are mostly text, but numbers occur."""
    return plain(mapping(meta.get(name)).get("value"))
