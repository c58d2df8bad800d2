"""Baidu's search by picture: an upload, the page of cards that it leads to, and the list of similar pictures.

The page of cards holds exact matches, where there are any, and the address of the list. It is read with the upload,
because later requests need that address; where it has matches of its own, it is also the first page of results.

Results are thumbnails with the page that shows the picture: what is called the object's address is a redirect within
Baidu. So every record is marked as `thumbnail_only`; this engine finds, it does not collect.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit
from weakref import WeakKeyDictionary

from lib.domains import host_of
from lib.engines.baidu import LANGUAGE, XHR_HEADERS, is_captcha
from lib.engines.base import (
    API,
    PAGE,
    UPLOAD,
    Engine,
    PageOutcome,
    PageResponse,
    SearchRequest,
    Web,
    asked,
    count_in,
    is_consent,
    is_html,
    json_object,
    judge_status,
    not_an_object,
    nothing,
)
from lib.engines.parsing import (
    Drift,
    PagePictures,
    address,
    check_size,
    filled,
    load_json_text,
    load_object,
    mapping,
    objects,
    plain,
    text,
    whole,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, identity

UPLOAD_PATH = "/upload"
INDEX_PATH = "/pcpage/index"
FIELDS = {"tn": "pc", "from": "pc", "image_source": "PC_UPLOAD_SEARCH_FILE", "range": '{"page_from":"searchIndex"}'}
ELSEWHERE = "address_on_another_host"
_CARD = re.compile(rb'"cardName"\s*:\s*"(\w{1,40})"')

KNOWN = frozenset(
    "contsign height width thumbUrl hoverUrl fromUrl fromURL objUrl index page subTitle typeInfo isVideo title"
    " image_src url simi".split()
)
EXPECTED = frozenset({"thumbUrl"})
EXPECTED_IN_MATCH = frozenset({"image_src", "url"})  # exact matches have names of their own
PAGE_SIZE = 30
REFERER = "https://graph.baidu.com/"
_CARDS = re.compile(rb"window\.cardData\s*=\s*(\[.*?\])\s*;?\s*(?:</script>|window\.)", re.DOTALL)


class BaiduGraph(Engine):
    """The engine `baidu-graph`."""

    name: ClassVar[str] = "baidu-graph"
    kinds: ClassVar[frozenset[str]] = frozenset({"image"})
    hosts: ClassVar[tuple[str, ...]] = ("https://graph.baidu.com",)
    interval: ClassVar[float] = 5.0
    page_size: ClassVar[int] = 30
    keeps_cookies: ClassVar[bool] = True
    upload_limit: ClassVar[int] = 5 * 2**20
    upload_formats: ClassVar[frozenset[str]] = frozenset({"jpeg", "png"})
    upload_keeps: ClassVar[float] = 600.0  # the signature in its addresses expires; nobody knows when
    terms: ClassVar[str] = (
        "Baidu offers no API for its search by picture and its terms do not allow automated queries without consent; "
        "its results are thumbnails, so prefer an open or keyed source."
    )

    def __init__(self, environ: Mapping[str, str] | None = None):
        super().__init__(environ)
        self._cards: WeakKeyDictionary[SearchRequest, PageResponse] = WeakKeyDictionary()

    def part(self, page: int) -> str:
        return PAGE if page == 0 else API

    async def warm_up(self, web: Web, host: str) -> None:
        await web.open(f"{host}{INDEX_PATH}?tpl_from=pc")

    async def upload(self, web: Web, host: str, request: SearchRequest, way: int) -> PageResponse:
        """Sends the picture and reads the page of cards; a refusal is given as it came."""
        kind, body = multipart(
            FIELDS, "image", "query." + request.mime.rpartition("/")[2], request.mime, request.picture
        )
        headers = XHR_HEADERS | {"Content-Type": kind, "Acs-Token": "", "Referer": f"{host}{INDEX_PATH}?tpl_from=pc"}
        response = await web.post(f"{host}{UPLOAD_PATH}?uptime={int(time.time() * 1000)}", headers=headers, body=body)
        cards_url = _cards_url(host, response)
        if not cards_url:
            return response
        cards = await web.get(cards_url, part=PAGE, headers=LANGUAGE)
        self._cards[request] = cards
        return replace(cards, part=UPLOAD)

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        if page == 0 and cursor["matches"]:
            return self._cards.pop(request, None) or await web.get(cursor["cards_url"], part=PAGE, headers=LANGUAGE)
        headers = XHR_HEADERS | {"Referer": cursor["cards_url"]}
        return await web.get(self.address(host, request, cursor, page), part=API, headers=headers)

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        if "cards_url" not in cursor:
            return host
        if page == 0 and cursor["matches"]:
            return str(cursor["cards_url"])
        return list_address(cursor["list_url"], page - 1 if cursor["matches"] else page)

    def classify(self, response: PageResponse) -> PageOutcome:
        if is_captcha(response):
            return PageOutcome("captcha")
        if (outcome := judge_status(response)) is not None:
            return outcome
        if response.part == API:
            return _judge_list(response)
        refused = "upload_rejected" if response.part == UPLOAD else "parse_error"
        if response.status != 200:
            return PageOutcome(refused, f"http_{response.status}")
        if (found := json_object(response)) is not None:
            return PageOutcome(refused, _refusal(found))
        return _judge_cards(response, refused)

    def read_upload(self, response: PageResponse) -> dict[str, Any]:
        """The page of cards, whether it has matches of its own, and where similar pictures are listed."""
        try:
            parsed = parse_page(response.body)
        except ParseError:
            return {}
        return {
            "cards_url": response.url,
            "matches": bool(parsed.images),
            "list_url": on_host(response.url, parsed.next_url),
            "uploaded_at": int(time.time()),
        }

    def is_last_page(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """The page of cards names the list or ends the search; a list ends where it has nothing new."""
        return part == PAGE and not parsed.next_url


def list_address(url: str, place: int) -> str:
    """The list from its `place`-th page on: as the engine gave it for the first one, which counts as its page 1."""
    if place == 0:
        return url
    parts = urlsplit(url)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    params["page"] = str((whole(params.get("page")) or 1) + place)
    return parts._replace(query=urlencode(params, quote_via=quote)).geturl()


def on_host(base: str, url: str) -> str:
    """An address that the engine named, on the host that is talked to; empty for one that leads elsewhere."""
    here, there = urlsplit(base), urlsplit(urljoin(base, url))
    if not url or there.hostname != here.hostname or there.port not in (here.port, None):
        return ""
    return there._replace(scheme=here.scheme, netloc=here.netloc).geturl()


def multipart(fields: Mapping[str, str], name: str, file: str, mime: str, content: bytes) -> tuple[str, bytes]:
    """(content type, body) of a form with text fields and one file."""
    mark = f"----gleaner{uuid.uuid4().hex}"
    lines = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    lines.append(
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {mime}\r\n\r\n'
    )
    return f"multipart/form-data; boundary={mark}", "".join(lines).encode() + content + f"\r\n--{mark}--\r\n".encode()


def _cards_url(host: str, response: PageResponse) -> str:
    found = json_object(response) or {}
    if response.status != 200 or whole(found.get("status")):
        return ""
    return on_host(host, text(mapping(found.get("data")).get("url")))


def _refusal(found: Mapping[str, Any]) -> str:
    """The reason why an upload was not taken. If it was, its page is on a host that we do not follow to."""
    if not whole(found.get("status")):
        return ELSEWHERE
    return text(found.get("msg"))[:60] or f"status_{text(found.get('status'))[:20]}"


def _judge_cards(response: PageResponse, refused: str) -> PageOutcome:
    cards = set(_CARD.findall(response.body)) if is_html(response) else set()
    if cards & {b"simipic", b"same"}:
        try:
            parsed = parse_page(response.body)
        except ParseError as error:
            return PageOutcome(refused, str(error))
        if parsed.next_url and not on_host(response.url, parsed.next_url):
            return PageOutcome(refused, ELSEWHERE)
        if parsed.images or parsed.next_url:
            return PageOutcome("ok")
    if b"noresult" in cards or "errpage" in urlsplit(response.url).path:
        return PageOutcome("empty")
    if not cards and is_html(response) and is_consent(response):
        return PageOutcome("consent")
    return PageOutcome(refused, "no_cards")


def _judge_list(response: PageResponse) -> PageOutcome:
    if response.status == 404:
        return PageOutcome("end", "http_404")
    if response.status != 200:
        return PageOutcome("parse_error", f"http_{response.status}")
    if (found := json_object(response)) is None:
        return not_an_object(response)
    if status := whole(found.get("status")):
        # An expired signature ends so, and the collector uploads once more after a `parse_error`.
        return PageOutcome("parse_error", f"status_{status}")
    listed = mapping(found.get("data")).get("list")
    if not isinstance(listed, list):
        return PageOutcome("parse_error", "no_data")
    if listed:
        return PageOutcome("ok")
    first = asked(response, "page", 1) <= 1
    promised = count_in(mapping(found.get("data")), "total", "totalNum", "listNum", "count") if first else 0
    return nothing(False, promised)


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
    return _parse_items(items, next_url, drift)


def parse_api(body: bytes) -> ParsedPage:
    """One paging response (`pcsimi` or `similardetailnew`). Raises ParseError: `blocked`, `not_json`, `no_data`."""
    response, drift = load_object(body)
    if whole(response.get("status")):
        raise ParseError("blocked")
    data = mapping(response.get("data"))
    if not isinstance(data.get("list"), list):
        raise ParseError("no_data")
    return _parse_items(objects(data["list"]), "", drift)


def _parse_items(items: list[Mapping[str, Any]], next_url: str, drift: Drift) -> ParsedPage:
    found = PagePictures(drift)
    for place, item in enumerate(items):
        thumb = address(item.get("thumbUrl")) or address(item.get("image_src")) or address(item.get("hoverUrl"))
        if not thumb:
            drift.left_out["no_address"] += 1
            continue
        drift.note("item", item, KNOWN, EXPECTED_IN_MATCH if "image_src" in item else EXPECTED, no_original=True)
        found.add(_read_item(place, item, thumb))
    return ParsedPage(found.in_order(), next_url, found.skipped, drift.report(), PAGE_SIZE)


def _read_item(rank: int, item: Mapping[str, Any], thumb: str) -> ImageRecord:
    page_url = address(item.get("fromUrl")) or address(item.get("fromURL")) or address(item.get("url"))
    title = item.get("title")
    variants = (VariantRecord("thumb", thumb, whole(item.get("width")), whole(item.get("height")), None, REFERER),)
    return ImageRecord(
        engine_id=identity(variants),
        rank=rank,
        page_url=page_url,
        title=plain(" ".join(map(text, title))) if isinstance(title, list) else plain(title),
        snippet=plain(item.get("subTitle")),
        domain=host_of(page_url),
        extra={"thumbnail_only": True} | filled(contsign=text(item.get("contsign"))),
        variants=variants,
    )
