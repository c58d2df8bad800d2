"""Bing's keyword search: the `images/async` fragments, whose tiles carry a JSON attribute `m`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import check_size, load_json_text
from lib.parsers.values import address, mapping, plain, text
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

KNOWN = frozenset(
    [
        "sid",
        "cturl",
        "cid",
        "purl",
        "murl",
        "turl",
        "md5",
        "shkey",
        "t",
        "mid",
        "desc",
        "ptitle",
        "mw",
        "mh",
        "cw",
        "ch",
        "ow",
        "oh",
        "surl",
        "ttl",
    ]
)
EXPECTED = frozenset({"purl", "murl", "turl", "mid", "t"})
PAGE_SIZE = 35
REFERER = "https://www.bing.com/"
_SIZE = re.compile(r"(\d{1,6})\s*[×x]\s*(\d{1,6})(?:\s*·\s*([A-Za-z]+))?")


class _Tiles(HTMLParser):
    """Collects (attribute `m`, size text) of every tile in document order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tiles: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "a" and "iusc" in (values.get("class") or "").split() and values.get("m"):
            self.tiles.append((values["m"] or "", []))

    def handle_data(self, data: str) -> None:
        if self.tiles and "×" in data:
            self.tiles[-1][1].append(data)


def parse_page(html: bytes) -> ParsedPage:
    """The tiles of one page. Raises ParseError: `captcha`, `no_state`."""
    check_size(html)
    reader = _Tiles()
    reader.feed(html.decode("utf-8", "replace"))
    if not reader.tiles and not _is_a_results_page(html):
        raise ParseError("captcha" if b"captcha" in html.lower() else "no_state")
    drift, images, skipped = Drift(), dict[str, ImageRecord](), 0
    for attribute, sizes in reader.tiles:
        try:
            value, repaired = load_json_text(attribute)
        except ParseError:
            skipped += 1
            continue
        drift.repaired |= repaired
        record = _read_tile(mapping(value), sizes, len(images), drift)
        if record is None:
            skipped += 1
        else:
            images.setdefault(record.engine_id, record)
    return ParsedPage(tuple(images.values()), "", skipped, drift.report(), PAGE_SIZE)


def _is_a_results_page(html: bytes) -> bool:
    return any(mark in html for mark in (b"dgControl", b"imgpt", b"mmComponent", b"no_results", b"b_no"))


def _read_tile(m: Mapping[str, Any], sizes: list[str], rank: int, drift: Drift) -> ImageRecord | None:
    engine_id = text(m.get("mid")) or text(m.get("md5")) or text(m.get("cid"))
    if not engine_id:
        return None
    drift.see("m", m, KNOWN, EXPECTED)
    page_url, original, thumb = address(m.get("purl")), address(m.get("murl")), address(m.get("turl"))
    drift.results += 1
    drift.empty_originals += not original
    size = _SIZE.search(" ".join(sizes))
    width, height = (int(size[1]) or None, int(size[2]) or None) if size else (None, None)
    variants = [VariantRecord("original", original, width, height, None, page_url)] if original else []
    variants += [VariantRecord("thumb", thumb, referer=REFERER)] if thumb else []
    return ImageRecord(
        engine_id=engine_id[:200],
        rank=rank,
        page_url=page_url,
        title=plain(m.get("t")),
        snippet=plain(m.get("desc")),
        domain=host_of(page_url) or host_of(original),
        width=width,
        height=height,
        format=(size[3] or "").lower() if size else "",
        extra={"md5": md5} if (md5 := text(m.get("md5"))) else {},
        variants=tuple(variants),
    )
