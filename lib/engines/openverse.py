"""Openverse: openly licensed pictures from many collections, with licence, creator and attribution.

No key is needed; one raises the limits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlencode

from lib.domains import host_of
from lib.engines.addresses import is_page, sides_at, with_originals
from lib.engines.base import (
    API,
    JSON_ONLY,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    Web,
    count_in,
    json_object,
    judge_json,
    nothing,
    query_url,
)
from lib.engines.parsing import (
    LARGEST,
    Drift,
    PagePictures,
    address,
    distinct,
    fact,
    filled,
    flag,
    link,
    load_object,
    objects,
    plain,
    text,
    whole,
)
from lib.records import ID_LENGTH, ImageRecord, ParsedPage, ParseError, VariantRecord

PATH = "/v1/images/"
TOKEN_PATH = "/v1/auth_tokens/token/"
CLIENT_KEYS = ("OPENVERSE_CLIENT_ID", "OPENVERSE_CLIENT_SECRET")  # both optional
TOKEN_MARGIN = 60.0  # seconds before its end at which a token is replaced

KNOWN = frozenset(
    "id title indexed_on foreign_landing_url url creator creator_url license license_version license_url provider"
    " source category filesize filetype tags attribution fields_matched mature height width thumbnail detail_url"
    " related_url unstable__sensitivity alt_files".split()
)
EXPECTED = frozenset({"id", "url", "foreign_landing_url", "license", "license_url", "creator", "attribution"})
MOST_TAGS = 50


class Openverse(Engine):
    """The engine `openverse`."""

    name: ClassVar[str] = "openverse"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://api.openverse.org",)
    # Without a key its answers have announced 20 requests a minute.
    interval: ClassVar[float] = 3.0
    page_size: ClassVar[int] = 20  # more needs a key
    most_pages: ClassVar[int] = 20  # deeper needs a key
    wants_contact: ClassVar[bool] = True
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {"small": "size=small", "medium": "size=medium", "large": "size=large"},
        "orientation": {
            "landscape": "aspect_ratio=wide",
            "portrait": "aspect_ratio=tall",
            "square": "aspect_ratio=square",
        },
        "type": {
            "photo": "category=photograph",
            "drawing": "category=illustration",
            "clipart": "category=illustration",
            "gif": "extension=gif",
        },
        "licence": {
            "cc": "license_type=all-cc",
            "commercial": "license_type=commercial",
            "modify": "license_type=modification",
            "public-domain": "license=cc0,pdm",
        },
    }
    filter_joint: ClassVar[str] = ","
    terms: ClassVar[str] = (
        "Openverse's terms allow searches through its API within its rate limits and forbid copying the catalogue; "
        "every picture keeps the licence and the attribution that are stored with it."
    )

    def __init__(self, environ: Mapping[str, str] | None = None):
        super().__init__(environ)
        self._token, self._token_ends = "", 0.0

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        if self._wants_token():
            response = await self._sign_in(web, host)
            if not self._token:
                return replace(response, part=API, body=b"{}")
        return await super().fetch(web, host, request, cursor, page)

    def headers(self, host: str, request: SearchRequest) -> Mapping[str, str]:
        return JSON_ONLY | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        """Pages are counted from 1 here."""
        params = {"q": request.text, "page": str(page + 1), "page_size": str(self.page_size)}
        return query_url(host, PATH, params | self.filter_params(request.filters))

    def _wants_token(self) -> bool:
        return all(map(self.key, CLIENT_KEYS)) and time.monotonic() >= self._token_ends

    async def _sign_in(self, web: Web, host: str) -> PageResponse:
        """Trades the client's id and secret, sent in a body, for a token; all three are kept in memory only."""
        form = dict(zip(("client_id", "client_secret"), map(self.key, CLIENT_KEYS), strict=True))
        headers = JSON_ONLY | {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode({"grant_type": "client_credentials", **form}).encode()
        response = await web.post(host + TOKEN_PATH, headers=headers, body=body)
        found = json_object(response) or {}
        token = found.get("access_token")
        self._token = token if response.status == 200 and isinstance(token, str) else ""
        self._token_ends = time.monotonic() + max(0.0, float(whole(found.get("expires_in")) or 0) - TOKEN_MARGIN)
        return response

    def classify(self, response: PageResponse) -> PageOutcome:
        found = judge_json(response)
        if isinstance(found, PageOutcome):
            return found
        if response.status == 404:
            return PageOutcome("end", "http_404")
        if response.status != 200:
            return PageOutcome("parse_error", f"http_{response.status}")
        results = found.get("results")
        if not isinstance(results, list):
            return PageOutcome("parse_error", "no_results_key")
        if results:
            return PageOutcome("ok")
        page, size = whole(found.get("page")) or 1, whole(found.get("page_size")) or self.page_size
        # It counts more than it gives to anybody, so that the pages tell where its list ends.
        promised = count_in(found, "result_count")
        if "page_count" in found:
            promised = min(promised, count_in(found, "page_count") * size)
        return nothing(page == 1, promised, (page - 1) * size)


def parse_api(body: bytes) -> ParsedPage:
    """One page of results; `next_url` names the next page. Raises ParseError: `not_json`, `no_data`, `refused: …`."""
    response, drift = load_object(body)
    results = response.get("results")
    if not isinstance(results, list):
        detail = text(response.get("detail")) or text(response.get("error"))
        raise ParseError(f"refused: {detail[:120]}" if detail else "no_data")
    page, size = whole(response.get("page")) or 1, whole(response.get("page_size")) or len(results)
    before = min((page - 1) * size, LARGEST)  # a rank has to fit in a column
    found = PagePictures(drift)
    for rank, result in enumerate(objects(results), before):
        if text(result.get("id")):
            found.add(_read_result(rank, result, drift))
        else:
            drift.left_out["no_id"] += 1
    more = page < (whole(response.get("page_count")) or 0)
    return ParsedPage(found.in_order(), f"page={page + 1}" if more else "", 0, drift.report())


def _read_result(rank: int, found: Mapping[str, Any], drift: Drift) -> ImageRecord:
    """One result. Its id is a UUID, which names one picture only; `indexed_on` says nothing about its publication."""
    page_url, original = link(found.get("foreign_landing_url")), address(found.get("url"))
    original = "" if is_page(original, page_url) else original
    drift.note("result", found, KNOWN, EXPECTED, no_original=not original)
    width, height, size = whole(found.get("width")), whole(found.get("height")), whole(found.get("filesize"))
    tags = [name for tag in objects(found.get("tags"))[:MOST_TAGS] if (name := plain(tag.get("name")))]
    sides = sides_at(original, width, height)
    variants = with_originals(
        [
            # The size in bytes is that of what stands at the address only where its sides are.
            VariantRecord("original", original, *sides, size if sides == (width, height) else None, page_url),
            VariantRecord("thumb", address(found.get("thumbnail"))),
        ]
    )
    return ImageRecord(
        engine_id=text(found.get("id"))[:ID_LENGTH],
        rank=rank,
        page_url=page_url,
        title=plain(found.get("title")),
        domain=host_of(page_url) or host_of(original),
        width=width,
        height=height,
        bytes=size,
        format=fact(found.get("filetype")).lower(),
        is_censored=flag(found.get("mature")),
        creator=fact(found.get("creator")),
        creator_url=link(found.get("creator_url")),
        license=license_name(fact(found.get("license")), fact(found.get("license_version"))),
        license_url=link(found.get("license_url")),
        attribution=fact(found.get("attribution")),
        extra=filled(
            source=text(found.get("source")),
            provider=text(found.get("provider")),
            indexed_on=text(found.get("indexed_on")),
            tags=tags,
        ),
        variants=distinct(variants),
    )


def license_name(code: str, version: str) -> str:
    """The short name that licences are known by: `by-sa`, `4.0` is `CC BY-SA 4.0`. A version alone names none."""
    code = code.strip().lower()
    names = {"cc0": "CC0", "pdm": "Public Domain Mark"}
    return f"{names.get(code, f'CC {code.upper()}')} {version}".strip() if code else ""
