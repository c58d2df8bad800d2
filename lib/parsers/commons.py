"""Wikimedia Commons: the MediaWiki API's `generator=search` with `imageinfo` and its licence metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import load_json
from lib.parsers.values import address, mapping, objects, plain, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

KNOWN = frozenset(
    [
        "pageid",
        "ns",
        "title",
        "index",
        "imagerepository",
        "imageinfo",
        "contentmodel",
        "pagelanguage",
        "pagelanguagehtmlcode",
        "pagelanguagedir",
        "touched",
        "lastrevid",
        "length",
        "fullurl",
        "editurl",
        "canonicalurl",
    ]
)
EXPECTED = frozenset({"pageid", "title", "imageinfo"})
MOST_CATEGORIES = 50
_HREF = re.compile(r"""href\s*=\s*["']([^"']+)["']""", re.IGNORECASE)


def parse_api(body: bytes) -> ParsedPage:
    """One answer; `next_url` holds the offset to go on with. Raises ParseError: `not_json`, `refused: …`."""
    value, repaired = load_json(body)
    answer = mapping(value)
    if error := mapping(answer.get("error")):
        raise ParseError(f"refused: {(text(error.get('code')) or text(error.get('info')))[:120]}")
    pages = mapping(answer.get("query")).get("pages")
    found = objects(list(pages.values()) if isinstance(pages, dict) else pages)
    if pages is None and "batchcomplete" not in answer and "continue" not in answer:
        raise ParseError("no_data")
    drift = Drift(repaired=repaired)
    ordered = sorted(enumerate(found), key=lambda pair: (whole(pair[1].get("index")) or 10**9, pair[0]))
    images = [record for _, page in ordered if (record := _read_page(page, drift)) is not None]
    offset = whole(mapping(answer.get("continue")).get("gsroffset"))
    return ParsedPage(tuple(images), f"gsroffset={offset}" if offset else "", len(found) - len(images), drift.report())


def _read_page(page: Mapping[str, Any], drift: Drift) -> ImageRecord | None:
    info = next(iter(objects(page.get("imageinfo"))), None)
    engine_id = text(page.get("pageid"))
    if info is None or not engine_id:
        return None
    drift.see("page", page, KNOWN, EXPECTED)
    drift.results += 1
    original = address(info.get("url"))
    drift.empty_originals += not original
    page_url = address(info.get("descriptionurl")) or address(page.get("fullurl"))
    meta = mapping(info.get("extmetadata"))
    artist = text(mapping(meta.get("Artist")).get("value"))
    return ImageRecord(
        engine_id=engine_id,
        rank=(whole(page.get("index")) or 1) - 1,
        page_url=page_url,
        title=plain(page.get("title")).removeprefix("File:").rpartition(".")[0] or plain(page.get("title")),
        snippet=_meta(meta, "ImageDescription"),
        domain=host_of(page_url) or host_of(original),
        width=whole(info.get("width")),
        height=whole(info.get("height")),
        bytes=whole(info.get("size")),
        format=text(info.get("mime")).partition("/")[2].partition("+")[0].lower(),
        published_at=_meta(meta, "DateTimeOriginal") or text(info.get("timestamp")),
        creator=plain(artist) or plain(info.get("user")),
        creator_url=address(href[1]) if (href := _HREF.search(artist)) else "",
        license=_meta(meta, "LicenseShortName") or _meta(meta, "UsageTerms") or _meta(meta, "License"),
        license_url=address(text(mapping(meta.get("LicenseUrl")).get("value"))),
        attribution=_meta(meta, "Attribution") or _meta(meta, "Credit"),
        extra=_extra(info, meta),
        variants=tuple(_variants(info, original, page_url)),
    )


def _variants(info: Mapping[str, Any], original: str, page_url: str) -> list[VariantRecord]:
    width, height, size = whole(info.get("width")), whole(info.get("height")), whole(info.get("size"))
    made = [VariantRecord("original", original, width, height, size, page_url)] if original else []
    if thumb := address(info.get("thumburl")):
        small = (whole(info.get("thumbwidth")), whole(info.get("thumbheight")))
        made.append(VariantRecord("preview", thumb, *small, None, page_url))
    return made


def _extra(info: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    categories = [part for part in _meta(meta, "Categories").split("|") if part][:MOST_CATEGORIES]
    found = {
        "sha1": text(info.get("sha1")),
        "categories": categories,
        "credit": _meta(meta, "Credit"),
        "restrictions": _meta(meta, "Restrictions"),
        "attribution_required": _meta(meta, "AttributionRequired").lower() == "true",
        "uploader": text(info.get("user")),
    }
    return {name: value for name, value in found.items() if value}


def _meta(meta: Mapping[str, Any], name: str) -> str:
    """A value of `extmetadata` without markup; values are mostly text, but numbers occur."""
    return plain(mapping(meta.get(name)).get("value"))
