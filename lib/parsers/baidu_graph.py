"""Baidu's search by picture: the card page and the two kinds of paging answers.

What they call the object's address is a redirect within Baidu; the thumbnail is the only picture address, so every
record is marked as `thumbnail_only`. The original has to be sought on the page.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import check_size, load_json, load_json_text
from lib.parsers.values import address, mapping, objects, plain, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

KNOWN = frozenset(
    [
        "contsign",
        "height",
        "width",
        "thumbUrl",
        "hoverUrl",
        "fromUrl",
        "fromURL",
        "objUrl",
        "index",
        "page",
        "subTitle",
        "typeInfo",
        "isVideo",
        "title",
        "image_src",
        "url",
        "simi",
    ]
)
EXPECTED = frozenset({"thumbUrl"})
EXPECTED_IN_MATCH = frozenset({"image_src", "url"})  # exact matches have names of their own
PAGE_SIZE = 30
REFERER = "https://graph.baidu.com/"
_CARDS = re.compile(rb"window\.cardData\s*=\s*(\[.*?\])\s*;?\s*(?:</script>|window\.)", re.DOTALL)
_PAIR = re.compile(r"[?&/]u=(\d+,\d+)")


def parse_page(html: bytes) -> ParsedPage:
    """The cards of the first page; `next_url` is where similar pictures are listed.

    Raises ParseError: `captcha`, `no_state`, `not_json`.
    """
    check_size(html)
    found = _CARDS.search(html)
    if found is None:
        raise ParseError("captcha" if b"wappass.baidu.com" in html or b"passMod_dialog" in html else "no_state")
    cards, repaired = load_json_text(found[1].decode("utf-8", "replace"))
    drift = Drift(repaired=repaired)
    items: list[Mapping[str, Any]] = []
    next_url = ""
    for card in objects(cards):
        data = mapping(card.get("tplData"))
        if text(card.get("cardName")) == "same":
            items += objects(data.get("list"))
        elif text(card.get("cardName")) == "simipic":
            next_url = address(data.get("firstUrl"))
    return ParsedPage(_read_items(items, drift), next_url, 0, drift.report(), PAGE_SIZE)


def parse_api(body: bytes) -> ParsedPage:
    """One paging answer (`pcsimi` or `similardetailnew`). Raises ParseError: `blocked`, `not_json`, `no_data`."""
    value, repaired = load_json(body)
    answer = mapping(value)
    if whole(answer.get("status")):
        raise ParseError("blocked")
    data = mapping(answer.get("data"))
    if not isinstance(data.get("list"), list):
        raise ParseError("no_data")
    drift = Drift(repaired=repaired)
    images = _read_items(objects(data["list"]), drift)
    return ParsedPage(images, "", 0, drift.report(), PAGE_SIZE)


def _read_items(items: list[Mapping[str, Any]], drift: Drift) -> tuple[ImageRecord, ...]:
    images: dict[str, ImageRecord] = {}
    for item in items:
        thumb = address(item.get("thumbUrl")) or address(item.get("image_src")) or address(item.get("hoverUrl"))
        if not thumb:
            continue
        drift.see("item", item, KNOWN, EXPECTED_IN_MATCH if "image_src" in item else EXPECTED)
        drift.results += 1
        drift.empty_originals += 1
        engine_id = _identity(item, thumb)
        images.setdefault(engine_id, _read_item(engine_id, len(images), item, thumb))
    return tuple(images.values())


def _read_item(engine_id: str, rank: int, item: Mapping[str, Any], thumb: str) -> ImageRecord:
    page_url = address(item.get("fromUrl")) or address(item.get("fromURL")) or address(item.get("url"))
    title = item.get("title")
    variant = VariantRecord("thumb", thumb, whole(item.get("width")), whole(item.get("height")), None, REFERER)
    return ImageRecord(
        engine_id=engine_id,
        rank=rank,
        page_url=page_url,
        title=plain(" ".join(map(text, title))) if isinstance(title, list) else plain(title),
        snippet=plain(item.get("subTitle")),
        domain=host_of(page_url),
        extra={"thumbnail_only": True},
        variants=(variant,),
    )


def _identity(item: Mapping[str, Any], thumb: str) -> str:
    """Baidu's own signature of the picture, which the thumbnail's address repeats; else a digest of the address."""
    if signature := text(item.get("contsign")):
        return signature[:200]
    pair = _PAIR.search(thumb)
    return pair[1] if pair else hashlib.sha256(thumb.encode()).hexdigest()[:32]
