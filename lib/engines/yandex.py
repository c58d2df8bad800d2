"""Yandex Images, by the pages and requests that its own site uses.

A picture is uploaded by a request, not through the page, whose upload button has changed often. The first page of
results is the HTML itself (its `data-state`); the pages after it come from the XHR `serpList/fetch`.

Both carry a `serpList` with `items.keys` (rank order) and `items.entities` (id -> entity). A page has several
`data-state` attributes and an XHR several blocks in no fixed order, so the list is looked for by what it is and never
by its place. Every field may be null, missing, or of another type.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from lib.domains import host_of
from lib.engines.addresses import is_page, unwrap
from lib.engines.base import (
    PAGE,
    UPLOAD,
    XHR,
    Engine,
    FilePart,
    PageOutcome,
    PageResponse,
    SearchRequest,
    Web,
    compact_json,
    consent_button,
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
    filled,
    flag,
    load_json,
    load_json_text,
    mapping,
    objects,
    plain,
    position,
    text,
    whole,
)
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord, identity

DOMAINS = tuple("yandex.com yandex.ru yandex.com.tr yandex.by yandex.kz yandex.uz yandex.eu ya.ru".split())
UPLOAD_BLOCKS = {"blocks": [{"block": "cbir-uploader__get-cbir-id"}]}
LIST_BLOCKS = {
    "blocks": [
        {"block": "extra-content", "params": {}, "version": 2},
        {
            "block": {"block": "i-react-ajax-adapter:ajax"},
            "params": {"type": "ImagesApp", "ajaxKey": "serpList/fetch"},
            "version": 2,
        },
    ]
}
XHR_HEADERS = {"Accept": "application/json, text/javascript, */*; q=0.01", "X-Requested-With": "XMLHttpRequest"}
CBIR_STORE = "https://avatars.mds.yandex.net/get-images-cbir"

# Inside `data-state` every quotation mark is escaped, so a mark with a plain one is the page's own and never a title.
_QUOTE = rb'(?:&quot;|&#34;|&#x22;|")'
_CAPTCHA = re.compile(
    rb'<form[^>]{0,300}\baction\s*=\s*"(?:https?://[^"/]{1,80})?/checkcaptcha'
    rb'|\bclass\s*=\s*"[^"]{0,200}\b(?:CheckboxCaptcha|AdvancedCaptcha)\b'
    rb'|\bid\s*=\s*"smartcaptcha-status"'
    rb"|<title>[^<]{0,20}(?:Are you not a robot|" + "Вы не робот".encode() + rb")"
)
_LIST = re.compile(_QUOTE + rb"serpList" + _QUOTE + rb"\s*:\s*\{")
_EMPTY = re.compile(
    rb'\bclass\s*=\s*"[^"]{0,200}\bEmptySearchResults\b|>[^<]{0,80}' + "ничего не нашли".encode(),
    re.IGNORECASE,
)
_OTHER_TAB = re.compile(_QUOTE + rb"cbir(?:Tags|OtherSizes|Sites)" + _QUOTE + rb"\s*:")
_REGION = re.compile(rb"<(?:h1|title)[^>]{0,200}>[^<]{0,200}is under construction", re.IGNORECASE)
_NAVI = re.compile(_QUOTE + rb"navi" + _QUOTE + rb"\s*:\s*\{")
_CONSENT_LABELS = ("Разрешить все", "Allow all", "Принять все", "Accept all")
_CONSENT = consent_button(_CONSENT_LABELS)

_IDS = {"id", "docid", "documentid", "reqid", "rimId", "pos", "width", "height", "origWidth", "origHeight"}
_TRAITS = {"freshnessCounter", "gifLabel", "ecomShield", "censored", "loading"}
ENTITY_KEYS = frozenset(_IDS | _TRAITS | {"url", "origUrl", "image", "alt", "snippet", "viewerData"})
SNIPPET_KEYS = frozenset({"title", "hasTitle", "text", "url", "domain", "shopScore"})
VIEWER_KEYS = frozenset({"preview", "dups", "thumb", "img_href", "detail_url", "snippet"})
EXPECTED_IN_ENTITY = frozenset({"pos", "origUrl", "image", "alt", "origWidth", "origHeight", "snippet", "viewerData"})
EXPECTED_IN_SNIPPET = frozenset({"title", "url", "domain"})
EXPECTED_IN_VIEWER = frozenset({"preview"})

MOST_RESULTS = 5_000  # of one response; recorded ones have at most a hundred
MOST_VARIANTS = 200  # of one picture; recorded answers have fewer than thirty
new = tuple.__new__
Variants = tuple[VariantRecord, ...]
_LISTS = (("preview", "original", "preview"), ("dup", "dup", "dups"))  # kind, kind of its origin, name in the viewer
_KIND_ORDER = {"original": 0, "preview": 1, "dup": 2, "thumb": 3}
_STATE = re.compile(rb"""\sdata-state\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Marks of the captcha page as recorded in 2026, and of the address that it lives at.
_CAPTCHA_MARKS = (b"/checkcaptcha", b"CheckboxCaptcha", b"AdvancedCaptcha", b"smartcaptcha-status", b"/showcaptcha")


class Yandex(Engine):
    """The engine `yandex`."""

    name: ClassVar[str] = "yandex"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://yandex.com", "https://yandex.ru")
    domains: ClassVar[tuple[str, ...]] = DOMAINS
    # Captchas are counted per address; peers send between one request a second and one every ten.
    interval: ClassVar[float] = 5.0
    page_size: ClassVar[int] = 30
    default_pages: ClassVar[int] = 5
    needs_browser: ClassVar[bool] = True
    upload_limit: ClassVar[int] = 5 * 2**20
    upload_formats: ClassVar[frozenset[str]] = frozenset({"jpeg", "png", "webp", "gif"})
    upload_ways: ClassVar[int] = 2
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {"small": "isize=small", "medium": "isize=medium", "large": "isize=large", "huge": "isize=wallpaper"},
        "orientation": {"landscape": "iorient=horizontal", "portrait": "iorient=vertical", "square": "iorient=square"},
        "type": {
            "photo": "type=photo",
            "clipart": "type=clipart",
            "drawing": "type=lineart",
            "face": "type=face",
            "gif": "itype=gifan",
        },
    }
    consent_labels: ClassVar[tuple[str, ...]] = _CONSENT_LABELS
    kept_headers: ClassVar[tuple[str, ...]] = (
        "content-type", "date", "retry-after", "x-yandex-captcha", "x-yandex-req-id",
    )  # fmt: skip
    terms: ClassVar[str] = (
        "Yandex asks that automatic queries go through its paid Search API, which this is not; prefer an official or "
        "open API, keep the pace low, and use this where you have the right to."
    )

    def address(self, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
        return xhr_address(host, request, cursor, page) if page else page_address(host, request, cursor)

    def part(self, page: int) -> str:
        return PAGE if page == 0 else XHR

    async def upload(self, web: Web, host: str, request: SearchRequest, way: int) -> PageResponse:
        """Way 0 is the multipart form of the touch site, way 1 the plain body of the app host."""
        if way == 0:
            asked = {"rpt": "imageview", "format": "json", "request": compact_json(UPLOAD_BLOCKS)}
            form = FilePart("upfile", "query." + request.mime.rpartition("/")[2], request.mime, request.picture)
            return await web.post(query_url(host, "/images/touch/search", asked), headers=XHR_HEADERS, form=form)
        asked = {"cbird": "111", "images_avatars_size": "preview", "images_avatars_namespace": "images-cbir"}
        url = query_url(host, "/images-apphost/image-download", asked)
        return await web.post(url, headers={"Content-Type": request.mime}, body=request.picture)

    async def warm_up(self, web: Web, host: str) -> None:
        await web.open(host + "/images/")

    async def fetch(
        self, web: Web, host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int
    ) -> PageResponse:
        if page == 0:
            return await web.open(self.address(host, request, cursor, page))
        return await super().fetch(web, host, request, cursor, page)

    def headers(self, host: str, request: SearchRequest) -> Mapping[str, str]:
        return XHR_HEADERS

    def classify(self, response: PageResponse) -> PageOutcome:
        path = urlsplit(response.url).path
        if path.startswith(("/showcaptcha", "/checkcaptcha")) or "x-yandex-captcha" in response.headers:
            return PageOutcome("captcha")
        is_json = response.body.lstrip()[:1] in (b"{", b"[")
        if _is_captcha_json(response.body) if is_json else _CAPTCHA.search(response.body):
            return PageOutcome("captcha")
        if response.status != 401 and (outcome := judge_status(response)) is not None:
            return outcome
        judge = {UPLOAD: _judge_upload, XHR: _judge_xhr, PAGE: _judge_page}[response.part]
        return judge(response, is_json)

    def is_last_page(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """No `navi.next`. An XHR without any `navi`, as it was until 2024, says nothing about what follows."""
        return not parsed.next_url and (part == PAGE or bool(_NAVI.search(body)))

    def read_upload(self, response: PageResponse) -> dict[str, Any]:
        """The picture's id and its address at the engine, and the time; empty where the response has no id."""
        found = _uploaded(response.body)
        return found | {"uploaded_at": int(time.time())} if found else {}


def page_address(host: str, request: SearchRequest, cursor: Mapping[str, Any]) -> str:
    """The first page of results. Without `cbir_page=similar` a picture's page has no results at all."""
    if request.kind == "keyword":
        return query_url(host, "/images/search", {"text": request.text} | _narrowed(request))
    asked = {"cbir_id": cursor["cbir_id"], "rpt": "imageview", "cbir_page": "similar", "url": cursor["image_url"]}
    return query_url(host, "/images/search", asked)


def xhr_address(host: str, request: SearchRequest, cursor: Mapping[str, Any], page: int) -> str:
    """The request for a later page, counted from 0 as `p`."""
    asked = {"format": "json", "request": compact_json(LIST_BLOCKS), "p": str(page)}
    if request.kind == "keyword":
        asked |= {"rpt": "image", "text": request.text} | _narrowed(request)
    else:
        bare = cursor["image_url"].partition("://")[2]
        asked |= {
            "rpt": "imagelike",
            "serpListType": "horizontal",
            "cbir_id": cursor["cbir_id"],
            "text": f'url:"{bare}"',
            "url": cursor["image_url"],
        }
    return query_url(host, "/images/search", asked)


def _judge_upload(response: PageResponse, is_json: bool) -> PageOutcome:
    if response.status == 200 and is_json:
        if _uploaded(response.body):
            return PageOutcome("ok")
        return PageOutcome("upload_rejected", "no_id_in_the_answer")
    if response.status == 200:
        region = _REGION.search(response.body)
        return PageOutcome("region", "under_construction") if region else PageOutcome("upload_rejected", "no_json")
    return PageOutcome("upload_rejected", f"http_{response.status}")


def _judge_xhr(response: PageResponse, is_json: bool) -> PageOutcome:
    if response.status == 404:
        return PageOutcome("end", "http_404")
    if not is_json:
        # The site's own code asks for JSON; HTML in its place is what an unwelcome visitor gets.
        is_html = response.body.lstrip()[:1] == b"<"
        return PageOutcome("blocked", "html_instead_of_json") if is_html else PageOutcome("parse_error", "not_json")
    if response.status != 200:
        return PageOutcome("parse_error", f"http_{response.status}")
    return PageOutcome("ok") if _LIST.search(response.body) else PageOutcome("parse_error", "no_serp_list")


def _judge_page(response: PageResponse, is_json: bool) -> PageOutcome:
    body = response.body
    if response.status == 200 and _LIST.search(body):
        return nothing(True, count_on(body)) if _EMPTY.search(body) and not _has_results(body) else PageOutcome("ok")
    if _REGION.search(body):
        return PageOutcome("region", "under_construction")
    if response.status != 200:
        return PageOutcome("parse_error", f"http_{response.status}")
    if is_consent(response, _CONSENT):
        return PageOutcome("consent")
    if "tabInt" in parse_qs(urlsplit(response.url).query) or _OTHER_TAB.search(body):
        return PageOutcome("wrong_tab")
    return nothing(True, count_on(body)) if _EMPTY.search(body) else PageOutcome("parse_error", "no_serp_list")


def _has_results(body: bytes) -> bool:
    """Tells if a page that says "nothing was found" shows pictures all the same, as it may for a respelled query."""
    try:
        return bool(parse_page(body).images)
    except ParseError:
        return False


def _is_captcha_json(body: bytes) -> bool:
    """A small object that speaks of a captcha at its top; a list of results is far larger and has other keys."""
    if b"captcha" not in body or len(body) > 100_000:
        return False
    value = _json_object(body)
    return value.get("type") == "captcha" or "captcha" in value


def _json_object(body: bytes) -> dict[str, Any]:
    """The object in a response that has to be right as it is; empty for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _uploaded(body: bytes) -> dict[str, str]:
    """`cbir_id` and `image_url` from the response to an upload in any of its shapes; empty where there is no id."""
    value = _json_object(body)
    for found in [value, *(mapping(block.get("params")) for block in objects(value.get("blocks")))]:
        if cbir_id := _cbir_id(found):
            image_url = found.get("originalImageUrl") or _original(found) or f"{CBIR_STORE}/{cbir_id}/orig"
            return {"cbir_id": cbir_id, "image_url": image_url}
    return {}


def _cbir_id(found: Mapping[str, Any]) -> str:
    """`cbirId` since 2025, `cbir_id` of the app host, or the parameter in the older `url`."""
    direct, link = found.get("cbirId") or found.get("cbir_id"), found.get("url")
    if isinstance(direct, str):
        return direct
    if not isinstance(link, str):
        return ""
    return parse_qs(urlsplit(link).query or link).get("cbir_id", [""])[0]


def _original(found: Mapping[str, Any]) -> str:
    """The engine's address of the uploaded picture at full size; empty where it is not told."""
    link = found.get("url")
    if not isinstance(link, str):
        return ""
    link = f"https:{link}" if link.startswith("//") else link
    if link.startswith("http") and "/get-images-cbir/" in link:
        return link.rpartition("/")[0] + "/orig"
    return parse_qs(urlsplit(link).query or link).get("url", [""])[0]


def _narrowed(request: SearchRequest) -> dict[str, str]:
    return Yandex().filter_params(request.filters)


def parse_page(html: bytes) -> ParsedPage:
    """The results that a full page carries (also when only its state was saved, as JSON).

    Raises ParseError with `captcha`, `wrong_tab` (a page of another kind, such as "about this image"), `no_state`
    (nothing in it is known), `too_large`, `too_complex` or `not_json`.
    """
    check_size(html)
    drift = Drift()
    states = list(_page_states(html, drift))
    lists = [found for state in states if (found := _serp_list(state)) is not None]
    if lists:
        return _parse_lists(lists, drift)
    if looks_like_captcha(html):
        raise ParseError("captcha")
    if b"EmptySearchResults" in html:
        return ParsedPage(())
    raise ParseError("wrong_tab" if any("initialState" in state for state in states) else "no_state")


def parse_xhr(body: bytes) -> ParsedPage:
    """The results of one `serpList/fetch` response.

    Raises ParseError with `captcha`, `not_json`, `no_serp_list`, `too_large` or `too_complex`.
    """
    if body.lstrip()[:1] == b"<":
        raise ParseError("captcha" if looks_like_captcha(body) else "not_json")
    value, repaired = load_json(body)
    lists = [found for block in _blocks(value) if (found := _adapter_list(block)) is not None]
    if not lists:
        raise ParseError("captcha" if _is_captcha_answer(value) else "no_serp_list")
    return _parse_lists(lists, Drift(repaired=repaired))


def looks_like_captcha(body: bytes) -> bool:
    """Tells if a page bears the marks of a captcha."""
    return any(mark in body for mark in _CAPTCHA_MARKS)


def _page_states(html: bytes, drift: Drift) -> Iterator[Mapping[str, Any]]:
    if html.lstrip()[:1] == b"{":
        value, drift.repaired = load_json(html)
        yield mapping(value)
        return
    for match in _STATE.finditer(html):
        found = match[1] if match[1] is not None else match[2]
        try:
            value, repaired = load_json_text(unescape_attribute(found.decode("utf-8", "replace")))
        except ParseError:
            continue  # the state of some other widget
        drift.repaired |= repaired and b"serpList" in found
        yield mapping(value)


def unescape_attribute(found: str) -> str:
    """An attribute's value. References without a semicolon stay: in an attribute, `&copy=1` belongs to a URL."""
    if "&" not in found:
        return found
    quick = found.replace("&quot;", '"').replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")
    if quick.count("&") == quick.count("&amp;"):
        return quick.replace("&amp;", "&")
    return _REFERENCE.sub(lambda match: unescape(match[0]), found)


def _serp_list(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for holder in (mapping(state.get("initialState")), state):
        if isinstance(holder.get("serpList"), dict):
            return mapping(holder["serpList"])
    return None


def _blocks(value: Any) -> list[Mapping[str, Any]]:
    """The blocks of a response; one that was saved without its envelope counts as a block itself."""
    if isinstance(value, list):
        return objects(value)
    return [*objects(mapping(value).get("blocks")), mapping(value)]


def _adapter_list(block: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The block's list, recognised by `adapterData.serpList`, which only the adapter block has."""
    for holder in (mapping(block.get("params")), block):
        found = mapping(holder.get("adapterData")).get("serpList")
        if isinstance(found, dict):
            return found
    return None


def _is_captcha_answer(value: Any) -> bool:
    response = mapping(value)
    kind = text(response.get("type")).lower()
    return "captcha" in kind or any("captcha" in str(key).lower() for key in list(response)[:50])


def _parse_lists(lists: list[Mapping[str, Any]], drift: Drift) -> ParsedPage:
    """The pictures of all lists in rank order; a picture that several lists show counts once."""
    found, next_url, entities = PagePictures(drift), "", 0
    for serp_list in lists:
        next_url = next_url or text(mapping(serp_list.get("navi")).get("next"))
        last_rank = -1
        for key, value in _entities(mapping(serp_list.get("items"))):
            entity = mapping(value)
            entities += 1
            if entities > MOST_RESULTS:
                raise ParseError("too_complex")
            if not entity:
                found.skip("no_record")
                continue
            rank = position(entity.get("pos"))
            last_rank = last_rank + 1 if rank is None else rank
            record = read_entity(text(key) or text(entity.get("id")), last_rank, entity, drift)
            if record.engine_id:
                found.add(record)
            else:
                found.skip("no_address")
    return ParsedPage(found.by_rank(), next_url, found.skipped, drift.report())


def _entities(items: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """(id, entity) in rank order: by `keys`, then those that `keys` forgot."""
    entities = items.get("entities")
    if isinstance(entities, list):
        yield from ((entity.get("id"), entity) for entity in objects(entities))
        return
    found = mapping(entities)
    keys = items.get("keys")
    named = dict.fromkeys(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else {}
    yield from ((key, found[key]) for key in named if key in found)
    yield from ((key, found[key]) for key in found if key not in named)


def read_entity(engine_id: str, rank: int, entity: Mapping[str, Any], drift: Drift) -> ImageRecord:
    """One entity as a record, known by its original's address; what is new or missing in it is noted in `drift`."""
    viewer = mapping(entity.get("viewerData"))
    snippet = mapping(entity.get("snippet")) or mapping(viewer.get("snippet"))
    page_url = address(snippet.get("url"))
    original = "" if is_page(original := address(entity.get("origUrl")), page_url) else original
    _note_drift(drift, entity, snippet, viewer, not original)
    width, height = whole(entity.get("origWidth")), whole(entity.get("origHeight"))
    variants = _read_variants(entity, viewer, VariantRecord("original", original, width, height, referer=page_url))
    title, alt = plain(snippet.get("title")), plain(entity.get("alt"))
    best = variants[0] if variants and variants[0].kind == "original" else VariantRecord("", "")
    rim_id = text(entity.get("rimId"))
    # By places and attributes: the detour over its keywords takes four times as long.
    domain = host_of(page_url) or text(snippet.get("domain")).lower()
    record = ImageRecord(
        identity(variants, engine_id), rank, page_url, title or alt, plain(snippet.get("text")), domain,
        width or best.width, height or best.height, best.bytes,
    )  # fmt: skip
    record.is_gif, record.is_shop = flag(entity.get("gifLabel")), flag(entity.get("ecomShield"))
    record.is_censored, record.variants = flag(entity.get("censored")), variants
    record.extra = filled(
        id=engine_id if engine_id != rim_id else "",
        alt=alt if alt != title and title else "",
        docid=text(entity.get("docid")) or text(entity.get("documentid")),
        rim_id=rim_id,
        freshness=text(entity.get("freshnessCounter")),
        shop_score=whole(snippet.get("shopScore")),
    )
    return record


def _note_drift(
    drift: Drift, entity: Mapping[str, Any], snippet: Mapping[str, Any], viewer: Mapping[str, Any], no_original: bool
) -> None:
    drift.results += 1
    drift.empty_originals += no_original
    shape = (len(entity), len(snippet), *entity, *snippet, *viewer)
    if shape == drift.usual:
        return
    # An object that is not there at all is told by the entity; its keys are not counted once more.
    usual = (
        drift.see("entity", entity, ENTITY_KEYS, EXPECTED_IN_ENTITY),
        drift.see("snippet", snippet, SNIPPET_KEYS, EXPECTED_IN_SNIPPET if snippet else frozenset()),
        drift.see("viewerData", viewer, VIEWER_KEYS, EXPECTED_IN_VIEWER if viewer else frozenset()),
    )
    if all(usual):
        drift.usual = shape


def _read_variants(entity: Mapping[str, Any], viewer: Mapping[str, Any], claimed: VariantRecord) -> Variants:
    """Every address of a picture once, under its best kind, originals first, with the sizes that any mention gave."""
    found: dict[str, list[Any]] = {}  # url -> kind, width, height, bytes
    _, original, width, height, _, referer, _ = claimed  # by the entity itself
    if original:
        inner = unwrap(original)
        found[inner or original] = ["original", width, height, None]
        if inner:
            _add(found, "preview", original, None, None)
    if (shown := viewer.get("img_href")) != entity.get("origUrl"):
        _add(found, "original", shown, None, None)  # another address: the claims are about `origUrl`
    in_order = True
    for kind, origin_kind, name in _LISTS:
        entries = viewer.get(name)
        for entry in entries[:MOST_VARIANTS] if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            _add(found, kind, entry.get("url"), entry.get("w"), entry.get("h"), entry.get("fileSizeInBytes"))
            origin = entry.get("origin")
            if origin and isinstance(origin, dict) and flag(entry.get("isMixedImage", True)):
                in_order = False
                _add(found, origin_kind, origin.get("url"), origin.get("w"), origin.get("h"))
    thumb = mapping(viewer.get("thumb"))
    width, height, link = thumb.get("w"), thumb.get("h"), thumb.get("url")
    if not width or not height:
        size = mapping(thumb.get("size"))
        width, height = width or size.get("width"), height or size.get("height")
    _add(found, "thumb", link, width, height)
    if (image := entity.get("image")) != link or not width or not height:
        _add(found, "thumb", image, entity.get("width"), entity.get("height"))
    # As `VariantRecord(...)`, without the detour over its keywords.
    made = [new(VariantRecord, (kind, url, w, h, size, referer, "")) for url, (kind, w, h, size) in found.items()]
    if not in_order:
        made.sort(key=lambda variant: _KIND_ORDER[variant.kind])
    return tuple(made[:MOST_VARIANTS])


def _add(found: dict[str, list[Any]], kind: str, url: Any, width: Any, height: Any, size: Any = None) -> None:
    # Most mentions repeat an address that is known with all that is claimed of it.
    known = found.get(url) if type(url) is str else None
    if known is None:
        link = address(url)
        if not link:
            return
        known = found.get(link)
        if known is None:
            found[link] = [kind, whole(width), whole(height), whole(size)]
            return
    if known[1] is None:
        known[1] = whole(width)
    if known[2] is None:
        known[2] = whole(height)
    if known[3] is None and size is not None:
        known[3] = whole(size)
