"""Naver's keyed search API: JSON, or the XML that it can answer with instead."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import load_json
from lib.parsers.raw_xml import load_xml
from lib.parsers.values import address, mapping, objects, plain, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

KNOWN = frozenset({"title", "link", "thumbnail", "sizeheight", "sizewidth"})
LAST_START = 1000  # the API's limit for `start`


def parse_api(body: bytes) -> ParsedPage:
    """One answer; `next_url` holds the next `start`. Raises ParseError: `refused: …`, `not_json`, `not_xml`, …"""
    answer, repaired = _load(body)
    code = text(answer.get("errorCode")) or text(mapping(answer.get("error")).get("errorCode"))
    if code:
        raise ParseError(f"refused: {code} {text(answer.get('errorMessage'))}"[:140])
    if not isinstance(answer.get("items"), list):
        raise ParseError("no_data")
    items, drift = objects(answer["items"]), Drift(repaired=repaired)
    start, display = whole(answer.get("start")) or 1, whole(answer.get("display")) or len(items)
    images = [_read(start - 1 + place, item, drift) for place, item in enumerate(items) if address(item.get("link"))]
    following = start + display
    more = bool(items) and following <= min(LAST_START, whole(answer.get("total")) or 0)
    return ParsedPage(tuple(images), f"start={following}" if more else "", len(items) - len(images), drift.report())


def _load(body: bytes) -> tuple[Mapping[str, Any], bool]:
    if body.lstrip()[:1] != b"<":
        value, repaired = load_json(body)
        return mapping(value), repaired
    root = load_xml(body)
    if root.tag != "rss":
        return {child.tag: child.text for child in root}, False
    channel = root.find("channel")
    found: dict[str, Any] = {} if channel is None else {c.tag: c.text for c in channel if c.tag != "item"}
    items = [] if channel is None else channel.findall("item")
    found["items"] = [{child.tag: child.text for child in item} for item in items]
    return found, False


def _read(rank: int, item: Mapping[str, Any], drift: Drift) -> ImageRecord:
    drift.see("item", item, KNOWN, KNOWN)
    drift.results += 1
    link, thumb = address(item.get("link")), address(item.get("thumbnail"))
    width, height = whole(item.get("sizewidth")), whole(item.get("sizeheight"))
    variants = [VariantRecord("original", link, width, height)]
    variants += [VariantRecord("thumb", thumb)] if thumb and thumb != link else []
    return ImageRecord(
        # The API names no id and no page, so the address of the picture stands for both.
        engine_id=hashlib.sha256(link.encode("utf-8", "replace")).hexdigest()[:32],
        rank=rank,
        title=plain(item.get("title")),
        domain=host_of(link),
        width=width,
        height=height,
        variants=tuple(variants),
    )
