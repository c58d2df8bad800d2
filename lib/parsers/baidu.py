"""Baidu's keyword search: the `acjson` answers, and the older `flip` page with the same records inside.

The original's address comes enciphered (`ippr_…`), wrapped in Baidu's re-encoding proxy (`gimg2.baidu.com`), or plain.
`replaceUrl` is often a copy on Baidu's own hosts, so it stands below the decoded `objURL`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import check_size, load_json, load_json_text
from lib.parsers.values import address, flag, mapping, objects, plain, position, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

# The cipher of `ippr_` addresses: three digraphs, then letter by letter. Letters that are not named stay.
_DIGRAPHS = (("_z2C$q", ":"), ("_z&e3B", "."), ("AzdH3F", "/"))
_LETTERS = str.maketrans("wkv1ju2it3hs4g5rq6fp7eo8dn9cm0bla", "abcdefghijklmnopqrstuvw1234567890")
_PROXY = re.compile(r"^https?://gimg\d*\.baidu\.com/image_search/(.+)$", re.IGNORECASE)
_FLIP = re.compile(rb"flip\.setData\(\s*'imgData'\s*,\s*(\{.*?\})\s*\)\s*;", re.DOTALL)
_BAIDU_HOSTS = ("baidu.com", "bdimg.com", "bdstatic.com", "bcebos.com")
_NO_DATE = "1970-01-01"

KNOWN = frozenset(
    [
        "adType",
        "hasAspData",
        "thumbURL",
        "middleURL",
        "largeTnImageUrl",
        "hasLarge",
        "hoverURL",
        "pageNum",
        "objURL",
        "fromURL",
        "fromURLHost",
        "currentIndex",
        "width",
        "height",
        "type",
        "is_gif",
        "filesize",
        "bdSrcType",
        "di",
        "pi",
        "is",
        "imgCollectionWord",
        "replaceUrl",
        "hasThumbData",
        "bdSetImgNum",
        "partnerId",
        "spn",
        "bdImgnewsDate",
        "fromPageTitle",
        "fromPageTitleEnc",
        "bdSourceName",
        "bdFromPageTitlePrefix",
        "isAspDianjing",
        "token",
        "imgType",
        "cs",
        "os",
        "simid",
        "personalized",
        "simid_info",
        "face_info",
        "xiangshi_info",
        "adPicId",
        "source_type",
        "strategyAssessment",
        "isCopyright",
        "isAigcEdit",
        "resourceInfo",
        "fromURLHostEnc",
        "fromJumpUrl",
    ]
)
EXPECTED = frozenset({"objURL", "fromURL", "di", "width", "height", "thumbURL"})


def parse_acjson(body: bytes) -> ParsedPage:
    """The results of one `acjson` answer. Raises ParseError: `blocked`, `captcha`, `not_json`, `no_data`, …"""
    if body.lstrip()[:1] == b"<":
        raise ParseError("captcha" if looks_like_captcha(body) else "not_json")
    value, repaired = load_json(body)
    answer = mapping(value)
    if flag(answer.get("antiFlag")):
        raise ParseError("blocked")
    if not isinstance(answer.get("data"), list):
        raise ParseError("no_data")
    return _parse_items(answer, Drift(repaired=repaired))


def parse_page(html: bytes) -> ParsedPage:
    """The results inside a `flip` page. Raises ParseError: `captcha`, `no_state`, `not_json`."""
    check_size(html)
    found = _FLIP.search(html)
    if found is None:
        raise ParseError("captcha" if looks_like_captcha(html) else "no_state")
    value, repaired = load_json_text(found[1].decode("utf-8", "replace"))
    return _parse_items(mapping(value), Drift(repaired=repaired))


def looks_like_captcha(body: bytes) -> bool:
    """Whether a page bears the marks of Baidu's captcha, which also holds the marks of its time-out page."""
    return any(mark in body for mark in (b"passMod_dialog", "百度安全验证".encode(), b"wappass.baidu.com"))


def decode_address(found: str) -> str:
    """An enciphered address (`ippr_…` for http, `ipprf_…` for https) in clear; any other text as it is."""
    if not found.startswith(("ippr_", "ipprf_")):
        return found
    for pair, character in _DIGRAPHS:
        found = found.replace(pair, character)
    return found.translate(_LETTERS)


def unwrap_proxy(url: str) -> tuple[str, str, str]:
    """(original address, Referer to send, expiry in UTC) of a `gimg2` address; empty texts for any other."""
    match = _PROXY.match(url)
    if match is None:
        return "", "", ""
    # Not a query string: the parameters follow the path, and a question mark stands before the last ones.
    pairs = (part.partition("=") for part in re.split(r"[&?]", match[1]))
    values = {name: unquote(value) for name, _, value in pairs}
    return address(values.get("src", "")), address(values.get("refer", "")), _expiry(values.get("sec", ""))


def _expiry(seconds: str) -> str:
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= 11):
        return ""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_items(answer: Mapping[str, Any], drift: Drift) -> ParsedPage:
    images: dict[str, ImageRecord] = {}
    skipped = 0
    for item in objects(answer.get("data")):
        if not item:
            continue  # the list ends with an empty object
        engine_id = text(item.get("di"))[:200] or text(item.get("cs"))[:200]
        if not engine_id or text(item.get("adType")) not in ("", "0"):
            skipped += 1
            continue
        drift.see("item", item, KNOWN, EXPECTED)
        record = _read_item(engine_id, position(item.get("pageNum")), len(images), item)
        drift.results += 1
        drift.empty_originals += not any(variant.kind == "original" for variant in record.variants)
        images.setdefault(engine_id, record)
    ordered = sorted(images.values(), key=lambda image: image.rank)
    return ParsedPage(tuple(ordered), "", skipped, drift.report())


def _read_item(engine_id: str, rank: int | None, place: int, item: Mapping[str, Any]) -> ImageRecord:
    page_url = address(decode_address(text(item.get("fromURL"))))
    published = text(item.get("bdImgnewsDate"))
    return ImageRecord(
        engine_id=engine_id,
        rank=place if rank is None else rank,
        page_url=page_url,
        title=plain(item.get("fromPageTitleEnc")) or plain(item.get("fromPageTitle")),
        domain=host_of(page_url) or text(item.get("fromURLHost")).lower(),
        width=whole(item.get("width")),
        height=whole(item.get("height")),
        bytes=whole(item.get("filesize")),
        format=text(item.get("type")).lower(),
        published_at="" if published.startswith(_NO_DATE) else published,
        is_gif=flag(item.get("is_gif")),
        extra={"simid": simid} if (simid := text(item.get("simid"))) else {},
        variants=tuple(_read_variants(item, page_url)),
    )


def _read_variants(item: Mapping[str, Any], page_url: str) -> Iterator[VariantRecord]:
    """Each address once, best first: the original, copies elsewhere, Baidu's re-encodings, the thumbnail."""
    width, height = whole(item.get("width")), whole(item.get("height"))
    given = address(decode_address(text(item.get("objURL"))))
    source, referer, expires = unwrap_proxy(given)
    copies = [
        (address(text(r.get("ObjURL"))), address(text(r.get("FromURL")))) for r in objects(item.get("replaceUrl"))
    ]
    wanted = [VariantRecord("original", source or given, width, height, None, referer or page_url)]
    wanted += [VariantRecord("dup", url, None, None, None, page) for url, page in copies if not _is_baidu(url)]
    if source:
        wanted.append(VariantRecord("preview", given, None, None, None, "https://image.baidu.com/", expires))
    wanted += [VariantRecord("preview", url, None, None, None, page) for url, page in copies if _is_baidu(url)]
    for name in ("thumbURL", "middleURL", "hoverURL", "largeTnImageUrl"):
        wanted.append(VariantRecord("thumb", address(item.get(name)), referer="https://image.baidu.com/"))
    seen: set[str] = set()
    for variant in wanted:
        if variant.url and variant.url not in seen:
            seen.add(variant.url)
            yield variant


def _is_baidu(url: str) -> bool:
    return host_of(url).endswith(_BAIDU_HOSTS)
