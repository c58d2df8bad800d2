"""Yandex Cloud's Search API v2: search by picture (JSON) and by words (XML inside JSON)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import load_json
from lib.parsers.raw_xml import load_xml
from lib.parsers.values import address, mapping, objects, plain, position, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

KNOWN = frozenset({"url", "format", "width", "height", "passage", "host", "pageTitle", "pageUrl"})
EXPECTED = frozenset({"url", "pageUrl", "width", "height"})
PAGE_SIZE = 100  # places a page is given in the ranks; the API promises no size
NOTHING_FOUND = "15"
_FORMATS = {"IMAGE_FORMAT_JPEG": "jpeg", "IMAGE_FORMAT_GIF": "gif", "IMAGE_FORMAT_PNG": "png"}


def parse_api(body: bytes) -> ParsedPage:
    """One answer of either kind; numbers may come as text. Raises ParseError: `refused: …`, `not_json`, `no_data`."""
    value, repaired = load_json(body)
    answer, drift = mapping(value), Drift(repaired=repaired)
    if isinstance(answer.get("rawData"), str):
        return _parse_words(answer["rawData"], drift)
    if "images" in answer or "id" in answer or "page" in answer:
        return _parse_pictures(answer, drift)
    detail = text(answer.get("message")) or text(mapping(answer.get("error")).get("message"))
    raise ParseError(f"refused: {detail[:120]}" if detail else "no_data")


def _parse_pictures(answer: Mapping[str, Any], drift: Drift) -> ParsedPage:
    found = objects(answer.get("images"))
    images: dict[str, ImageRecord] = {}
    for item in found:
        if not (url := address(item.get("url"))):
            continue
        drift.see("image", item, KNOWN, EXPECTED)
        drift.results += 1
        page_url = address(item.get("pageUrl"))
        width, height = whole(item.get("width")), whole(item.get("height"))
        engine_id = _identity(url)
        record = ImageRecord(
            engine_id=engine_id,
            rank=len(images),
            page_url=page_url,
            title=plain(item.get("pageTitle")),
            snippet=plain(item.get("passage")),
            domain=host_of(page_url) or text(item.get("host")).lower(),
            width=width,
            height=height,
            format=_FORMATS.get(text(item.get("format")), ""),
            variants=(VariantRecord("original", url, width, height, None, page_url),),
        )
        images.setdefault(engine_id, record)
    page = position(answer.get("page")) or 0
    following = f"page={page + 1}" if found else ""
    return ParsedPage(tuple(images.values()), following, len(found) - len(images), drift.report(), PAGE_SIZE)


def _parse_words(encoded: str, drift: Drift) -> ParsedPage:
    try:
        root = load_xml(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise ParseError("not_base64") from None
    error = root.find(".//error")
    if error is not None:
        if error.get("code") == NOTHING_FOUND:
            return ParsedPage((), page_size=PAGE_SIZE)
        raise ParseError(f"refused: {error.get('code') or ''} {text(error.text)}"[:140])
    images: dict[str, ImageRecord] = {}
    skipped = 0
    for document in root.iterfind(".//results/grouping/group/doc"):
        record = _read_document(len(images), document)
        if record is None:
            skipped += 1
            continue
        drift.results += 1
        images.setdefault(record.engine_id, record)
    following = "page=next" if images else ""
    return ParsedPage(tuple(images.values()), following, skipped, drift.report(), PAGE_SIZE)


def _read_document(rank: int, document: Element) -> ImageRecord | None:
    found = {child.tag: child.text for child in document.iterfind("image-properties/*")}
    page_url = address(found.get("html-link"))
    original = address(found.get("image-link")) or address(document.findtext("url"))
    thumb = address(found.get("thumbnail-link"))
    if not original and not thumb:
        return None
    width, height = whole(found.get("original-width")), whole(found.get("original-height"))
    size = whole(found.get("file-size"))
    variants = [VariantRecord("original", original, width, height, size, page_url)] if original else []
    if thumb:
        small = (whole(found.get("thumbnail-width")), whole(found.get("thumbnail-height")))
        variants.append(VariantRecord("thumb", thumb, *small))
    return ImageRecord(
        engine_id=text(found.get("id"))[:200] or _identity(original or thumb),
        rank=rank,
        page_url=page_url,
        title=plain(document.findtext("title")),
        domain=host_of(page_url) or text(document.findtext("domain")).lower(),
        width=width,
        height=height,
        bytes=size,
        format=text(found.get("mime-type")).rpartition("/")[2].lower(),
        published_at=text(document.findtext("modtime")),
        variants=tuple(variants),
    )


def _identity(url: str) -> str:
    """The API names no id for a picture, so a digest of its address stands for one."""
    return hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:32]
