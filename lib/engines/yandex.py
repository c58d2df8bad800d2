"""Yandex Images, by the pages and requests that its own site uses.

A picture is uploaded by a request, not through the page, whose upload button has changed often. The first page of
results is the HTML itself (its `data-state`); the pages after it come from the XHR `serpList/fetch`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from lib.engines.base import PAGE, UPLOAD, XHR, Answer, Ask, Engine, FilePart, Verdict, Web
from lib.engines.judging import count_on, nothing
from lib.parsers.yandex import parse_page
from lib.records import ParsedPage, ParseError

DOMAINS = ("com", "ru", "com.tr", "by", "kz", "uz", "eu")
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
XHR_HEADERS = {
    "Accept": "application/json, text/javascript, */*; q=0.01",
    "X-Requested-With": "XMLHttpRequest",
}
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
_CONSENT = re.compile(
    r"<button[^>]{0,300}>(?:\s|<[^>]{0,200}>)*(?:" + "|".join(_CONSENT_LABELS) + r")\s*<", re.IGNORECASE
)


class Source(Engine):
    """The engine `yandex`."""

    name: ClassVar[str] = "yandex"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://yandex.com", "https://yandex.ru")
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
        "orientation": {
            "landscape": "iorient=horizontal",
            "portrait": "iorient=vertical",
            "square": "iorient=square",
        },
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

    def knows_host(self, host: str) -> bool:
        name = urlsplit(host).hostname or ""
        return name in {f"yandex.{domain}" for domain in DOMAINS} | {"ya.ru"}

    def address(self, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
        return xhr_address(host, ask, cursor, page) if page else page_address(host, ask, cursor)

    def part(self, page: int) -> str:
        return PAGE if page == 0 else XHR

    async def upload(self, web: Web, host: str, ask: Ask, way: int) -> Answer:
        """Way 0 is the multipart form of the touch site, way 1 the plain body of the app host."""
        if way == 0:
            asked = {"rpt": "imageview", "format": "json", "request": _compact(UPLOAD_BLOCKS)}
            form = FilePart("upfile", "query." + ask.mime.rpartition("/")[2], ask.mime, ask.picture)
            return await web.post(_address(host, "/images/touch/search", asked), headers=XHR_HEADERS, form=form)
        asked = {
            "cbird": "111",
            "images_avatars_size": "preview",
            "images_avatars_namespace": "images-cbir",
        }
        return await web.post(
            _address(host, "/images-apphost/image-download", asked),
            headers={"Content-Type": ask.mime},
            body=ask.picture,
        )

    async def enter(self, web: Web, host: str) -> None:
        await web.open(host + "/images/")

    async def fetch(self, web: Web, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> Answer:
        if page == 0:
            return await web.open(self.address(host, ask, cursor, page))
        return await web.get(self.address(host, ask, cursor, page), part=XHR, headers=XHR_HEADERS)

    def classify(self, answer: Answer) -> Verdict:
        path = urlsplit(answer.url).path
        if path.startswith(("/showcaptcha", "/checkcaptcha")) or "x-yandex-captcha" in answer.headers:
            return Verdict("captcha")
        is_json = answer.body.lstrip()[:1] in (b"{", b"[")
        if _is_captcha_json(answer.body) if is_json else _CAPTCHA.search(answer.body):
            return Verdict("captcha")
        asked_to_wait = answer.status == 503 and "retry-after" in answer.headers
        if answer.status in (403, 429, 451) or asked_to_wait:
            return Verdict("blocked", f"http_{answer.status}")
        if answer.status >= 500:
            return Verdict("network", f"http_{answer.status}")
        judge = {UPLOAD: _judge_upload, XHR: _judge_xhr, PAGE: _judge_page}[answer.part]
        return judge(answer, is_json)

    def says_end(self, part: str, body: bytes, parsed: ParsedPage) -> bool:
        """No `navi.next`. An XHR without any `navi`, as it was until 2024, says nothing about what follows."""
        return not parsed.next_url and (part == PAGE or bool(_NAVI.search(body)))

    def read_upload(self, answer: Answer) -> dict[str, Any]:
        """The picture's id and its address at the engine, and the time; empty where the answer has no id."""
        found = _uploaded(answer.body)
        return found | {"uploaded_at": int(time.time())} if found else {}


def page_address(host: str, ask: Ask, cursor: Mapping[str, Any]) -> str:
    """The first page of results. Without `cbir_page=similar` a picture's page has no results at all."""
    if ask.kind == "keyword":
        return _address(host, "/images/search", {"text": ask.text} | _narrowed(ask))
    asked = {"cbir_id": cursor["cbir_id"], "rpt": "imageview", "cbir_page": "similar", "url": cursor["image_url"]}
    return _address(host, "/images/search", asked)


def xhr_address(host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
    """The request for a later page, counted from 0 as `p`."""
    asked = {"format": "json", "request": _compact(LIST_BLOCKS), "p": str(page)}
    if ask.kind == "keyword":
        asked |= {"rpt": "image", "text": ask.text} | _narrowed(ask)
    else:
        bare = cursor["image_url"].partition("://")[2]
        asked |= {
            "rpt": "imagelike",
            "serpListType": "horizontal",
            "cbir_id": cursor["cbir_id"],
            "text": f'url:"{bare}"',
            "url": cursor["image_url"],
        }
    return _address(host, "/images/search", asked)


def _judge_upload(answer: Answer, is_json: bool) -> Verdict:
    if answer.status == 200 and is_json:
        if _uploaded(answer.body):
            return Verdict("ok")
        return Verdict("upload_rejected", "no_id_in_the_answer")
    if answer.status == 200:
        region = _REGION.search(answer.body)
        return Verdict("region", "under_construction") if region else Verdict("upload_rejected", "no_json")
    return Verdict("upload_rejected", f"http_{answer.status}")


def _judge_xhr(answer: Answer, is_json: bool) -> Verdict:
    if answer.status == 404:
        return Verdict("end", "http_404")
    if not is_json:
        # The site's own code asks for JSON; HTML in its place is what an unwelcome visitor gets.
        is_html = answer.body.lstrip()[:1] == b"<"
        return Verdict("blocked", "html_instead_of_json") if is_html else Verdict("parse_error", "not_json")
    if answer.status != 200:
        return Verdict("parse_error", f"http_{answer.status}")
    return Verdict("ok") if _LIST.search(answer.body) else Verdict("parse_error", "no_serp_list")


def _judge_page(answer: Answer, is_json: bool) -> Verdict:
    body = answer.body
    if answer.status == 200 and _LIST.search(body):
        return nothing(True, count_on(body)) if _EMPTY.search(body) and not _has_results(body) else Verdict("ok")
    if _REGION.search(body):
        return Verdict("region", "under_construction")
    if answer.status != 200:
        return Verdict("parse_error", f"http_{answer.status}")
    if _CONSENT.search(body.decode("utf-8", "replace")):
        return Verdict("consent")
    if "tabInt" in parse_qs(urlsplit(answer.url).query) or _OTHER_TAB.search(body):
        return Verdict("wrong_tab")
    return nothing(True, count_on(body)) if _EMPTY.search(body) else Verdict("parse_error", "no_serp_list")


def _has_results(body: bytes) -> bool:
    """Whether a page that says "nothing was found" shows pictures all the same, as it may for a respelled query."""
    try:
        return bool(parse_page(body).images)
    except ParseError:
        return False


def _is_captcha_json(body: bytes) -> bool:
    """A small object that speaks of a captcha at its top; a list of results is far larger and has other keys."""
    if b"captcha" not in body or len(body) > 100_000:
        return False
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and (value.get("type") == "captcha" or "captcha" in value)


def _uploaded(body: bytes) -> dict[str, str]:
    """`cbir_id` and `image_url` from the answer to an upload in any of its shapes; empty where there is no id."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    blocks = value.get("blocks") if isinstance(value, dict) else None
    params = [block.get("params") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    for found in [value, *params]:
        if isinstance(found, dict) and (cbir_id := _cbir_id(found)):
            image_url = found.get("originalImageUrl") or _original(found) or f"{CBIR_STORE}/{cbir_id}/orig"
            return {"cbir_id": cbir_id, "image_url": image_url}
    return {}


def _cbir_id(found: Mapping[str, Any]) -> str:
    """`cbirId` since 2025, `cbir_id` of the app host, or the parameter in the `url` of before."""
    direct = found.get("cbirId") or found.get("cbir_id")
    if isinstance(direct, str):
        return direct
    link = found.get("url")
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


def _narrowed(ask: Ask) -> dict[str, str]:
    return Source().filter_params(ask.filters)


def _address(host: str, path: str, asked: Mapping[str, str]) -> str:
    return f"{host}{path}?{urlencode(asked, quote_via=quote)}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
