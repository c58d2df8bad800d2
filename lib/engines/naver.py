"""Naver's picture search: every page of results has its records in the page object `imageSearchTabData`.

The document is kept as received, since the object stands in it as a literal. Where it does not, or not as one that can
be read without running it, the browser that ran the page is asked for the object, and that is kept as JSON.

The literal is JavaScript: keys without quotes, trailing commas, blanks anywhere; `to_json` turns it into JSON without
running it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at, unwrap, with_originals
from lib.engines.base import (
    CONSENT_LABELS,
    PAGE,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    Web,
    asked,
    count_on,
    is_consent,
    judge_status,
    nothing,
    query_url,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    check_size,
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
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, identity

PATH = "/search.naver"
_CAPTCHA = re.compile(
    rb'\b(?:id|class)\s*=\s*"[^"]{0,200}captcha|<form[^>]{0,300}captcha|<title>[^<]{0,60}' + "자동입력 방지".encode(),
    re.IGNORECASE,
)
_EMPTY = re.compile(rb'\bclass\s*=\s*"[^"]{0,200}\bnot_found02\b')
_HAS_RECORDS = re.compile(rb"items[\"\']?\s*:\s*\[\s*\{")

KNOWN = frozenset(
    "type title link source thumb thumbnail lensThumb viewerThumb originalUrl orgWidth orgHeight imgId color dateInfo"
    " writerTitle tld desc saslink".split()
)
EXPECTED = frozenset({"title", "link", "originalUrl", "orgWidth", "orgHeight", "imgId"})
PAGE_SIZE = 50
OBJECT = "imageSearchTabData"
_EMPTY_MARK = b"not_found02"
# One token of a JavaScript literal: a string, a run of blanks, a word, or a single character.
_TOKEN = re.compile(
    r""""(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|\s+|//[^\n]*|/\*.*?(?:\*/|\Z)"""
    r"|[A-Za-z_$][\w$]*|-?[\d.][\w.+-]*|.",
    re.DOTALL,
)
# Strings and braces, all that tells where an object ends. A string without end is one token up to the end: asked for
# at every quotation mark after it, it would take hours.
_PARTS = re.compile(rb""""(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|[{}]""", re.DOTALL)
_COLON = re.compile(r"\s*:")
_WORDS = {"undefined": "null", "null": "null", "true": "true", "false": "false", "NaN": "null", "Infinity": "null"}


class Naver(Engine):
    """The engine `naver`."""

    name: ClassVar[str] = "naver"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://search.naver.com",)
    interval: ClassVar[float] = 5.0  # blocks are counted per address; nobody has told the limit
    page_size: ClassVar[int] = 50
    most_pages: ClassVar[int] = 20
    tells_last_page: ClassVar[bool] = False
    needs_browser: ClassVar[bool] = True
    consent_labels: ClassVar[tuple[str, ...]] = CONSENT_LABELS
    terms: ClassVar[str] = (
        "Naver's terms do not allow automated collection of its result pages without consent, and its terms of "
        "2026-07-31 restrict keeping results of its API as well; prefer naver-api or an open source."
    )

    def part(self, page: int) -> str:
        return PAGE

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        response = await web.open(self.address(host, request, cursor, page))
        if response.status != 200 or _is_readable(response.body):
            return response
        value = await web.value(OBJECT)
        return replace(response, body=value) if _is_readable(value) else response

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        start = str(page * self.page_size + 1)
        params = {"where": "image", "ssc": "tab.image.all", "query": request.text, "start": start}
        return query_url(host, PATH, params | self.filter_params(request.filters))

    def classify(self, response: PageResponse) -> PageOutcome:
        is_json = response.body.lstrip()[:1] == b"{"  # the object as the browser knows it
        literal = response.body if is_json else find_literal(response.body)
        if "captcha" in urlsplit(response.url).path.lower() or (literal is None and _CAPTCHA.search(response.body)):
            return PageOutcome("captcha")
        if (outcome := judge_status(response, "parse_error")) is not None:
            return outcome
        first = asked(response, "start", 1) == 1
        if literal is None and is_consent(response):
            return PageOutcome("consent")
        promised = count_on(response.body if literal is None else literal) if first else 0
        if literal is None:
            empty = _EMPTY.search(response.body)
            return nothing(first, promised) if empty else PageOutcome("parse_error", "no_page_object")
        if _HAS_RECORDS.search(literal):
            return PageOutcome("ok")
        if re.search(rb"items[\"\']?\s*:\s*\[\s*\]", literal) is None:
            return PageOutcome("parse_error", "no_items")
        # An empty list on the first page is believed where the page also says in words that nothing was found.
        over = not first or _EMPTY.search(response.body)
        return nothing(first, promised) if over else PageOutcome("parse_error", "no_items")


def _is_readable(body: bytes) -> bool:
    try:
        parse_page(body)
    except ParseError:
        return False
    return True


def parse_page(body: bytes) -> ParsedPage:
    """The pictures of one page, saved as JSON or as HTML; advertisements are skipped and counted.

    Raises ParseError: `no_state`, `not_json`, `too_large`, `too_complex`.
    """
    check_size(body)
    if body.lstrip()[:1] == b"{":
        response, drift = load_object(body)
    elif (literal := find_literal(body)) is not None:
        response, drift = load_object(to_json(literal.decode("utf-8", "replace")))
    elif _EMPTY_MARK in body:
        return ParsedPage((), page_size=PAGE_SIZE)
    else:
        raise ParseError("no_state")
    return _parse_items(mapping(response.get("content")).get("items"), drift)


def find_literal(html: bytes) -> bytes | None:
    """The object after `imageSearchTabData=`, up to its closing brace; None where there is none."""
    match = re.search(OBJECT.encode() + rb"\s*=\s*(?=\{)", html)
    if match is None:
        return None
    depth = 0
    for token in _PARTS.finditer(html, match.end()):
        depth += {b"{": 1, b"}": -1}.get(token[0], 0)
        if depth == 0:
            return html[match.end() : token.end()]
    return None


def to_json(literal: str) -> str:
    """A JavaScript object literal as JSON: keys quoted, strings in double quotes, trailing commas and comments gone."""
    parts: list[str] = []
    for token in _meaningful(literal):
        if token in "}]" and parts and parts[-1] == ",":
            parts.pop()
        parts.append(token)
    return "".join(parts)


def _meaningful(literal: str) -> Iterator[str]:
    for match in _TOKEN.finditer(literal):
        token = match[0]
        if token.isspace() or token.startswith(("//", "/*")):
            continue
        if token[0] == "'":
            yield '"' + token[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
        elif token[0].isalpha() or token[0] in "_$":
            is_key = token not in _WORDS or _COLON.match(literal, match.end()) is not None
            yield f'"{token}"' if is_key else _WORDS[token]
        else:
            yield token


def _parse_items(items: Any, drift: Drift) -> ParsedPage:
    if not isinstance(items, list):
        raise ParseError("no_state")
    found = PagePictures(drift)
    for rank, item in enumerate(objects(items)):
        if text(item.get("type")) not in ("", "image"):
            found.skip("advertisement")
            continue
        record = _read_item(rank, item)
        if not record.engine_id:
            found.skip("no_address")
            continue
        drift.note("item", item, KNOWN, EXPECTED, no_original=not address(item.get("originalUrl")))
        found.add(record)
    return ParsedPage(found.in_order(), "", found.skipped, drift.report(), PAGE_SIZE)


_DATE = re.compile(r"\d{4}\D")
_GIF = re.compile(r"[?&]type=[^&#]*_gif(?:[&#]|\Z)")


def _read_item(rank: int, item: Mapping[str, Any]) -> ImageRecord:
    page_url, original = link(item.get("link")), address(item.get("originalUrl"))
    viewer, image_id = address(item.get("viewerThumb")), text(item.get("imgId"))
    width, height = whole(item.get("orgWidth")), whole(item.get("orgHeight"))
    thumbs = [address(item.get(name)) for name in ("thumb", "thumbnail", "lensThumb")]
    source = "" if is_page(original, page_url) else original
    source = source or next(filter(None, map(unwrap, (viewer, *thumbs))), "")
    # Naver's own proxy serves at most 960 pixels, but it serves them when the blog's server refuses strangers.
    wanted = [("original", source, *sides_at(source, width, height)), ("preview", viewer, None, None)]
    wanted += [("thumb", thumb, None, None) for thumb in thumbs]
    variants = [VariantRecord(kind, url, w, h, None, _referer(url, page_url)) for kind, url, w, h in wanted]
    variants = list(distinct(with_originals(variants)))
    domain = host_of(page_url) or text(item.get("tld")).lower()
    creator = fact(item.get("writerTitle"))
    return ImageRecord(
        engine_id=identity(variants, image_id),
        rank=rank,
        page_url=page_url,
        title=plain(item.get("title")),
        snippet=plain(item.get("desc")),
        domain=domain,
        width=width,
        height=height,
        published_at=date if _DATE.match(date := fact(item.get("dateInfo"))) else "",  # not `3일 전`, three days ago
        creator="" if creator.lower() in (domain, text(item.get("source")).lower()) else creator,  # a site made nothing
        is_gif=_GIF.search(viewer) is not None,
        is_shop="nshopping" in image_id,
        extra=filled(img_id=image_id, source=text(item.get("source")), color=text(item.get("color"))),
        variants=tuple(variants),
    )


def _referer(url: str, page_url: str) -> str:
    return "https://blog.naver.com" if host_of(url) == "blogfiles.naver.net" else page_url
