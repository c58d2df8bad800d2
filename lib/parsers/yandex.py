"""Yandex Images: the first page's `data-state` and the answers of `serpList/fetch`.

Both carry a `serpList` with `items.keys` (rank order) and `items.entities` (id -> entity). A page has several
`data-state` attributes and an XHR several blocks in no fixed order, so the list is looked for by what it is and never
by its place. Every field may be null, missing, or of another type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import check_size, load_json, load_json_text
from lib.parsers.values import address, flag, mapping, objects, plain, position, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

_IDS = {"id", "docid", "documentid", "reqid", "rimId", "pos"}
_SIZES = {"width", "height", "origWidth", "origHeight"}
_TRAITS = {"freshnessCounter", "gifLabel", "ecomShield", "censored", "loading"}
ENTITY_KEYS = frozenset(_IDS | _SIZES | _TRAITS | {"url", "origUrl", "image", "alt", "snippet", "viewerData"})
SNIPPET_KEYS = frozenset({"title", "hasTitle", "text", "url", "domain", "shopScore"})
VIEWER_KEYS = frozenset({"preview", "dups", "thumb", "img_href", "detail_url", "snippet"})
EXPECTED_IN_ENTITY = frozenset({"pos", "origUrl", "image", "alt", "origWidth", "origHeight", "snippet", "viewerData"})
EXPECTED_IN_SNIPPET = frozenset({"title", "url", "domain"})
EXPECTED_IN_VIEWER = frozenset({"preview"})
MISSING_OBJECT: frozenset[str] = frozenset()

ID_LENGTH = 200
MOST_RESULTS = 5_000  # of one answer; recorded ones have at most a hundred
MOST_VARIANTS = 200  # of one picture; recorded answers have fewer than thirty
new = tuple.__new__
NO_VARIANT = VariantRecord("", "")
_LISTS = (("preview", "original", "preview"), ("dup", "dup", "dups"))  # kind, kind of its origin, name in the viewer
_KIND_ORDER = {"original": 0, "preview": 1, "dup": 2, "thumb": 3}
_STATE = re.compile(rb"""\sdata-state\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Marks of the captcha page as recorded in 2026, and of the address that it lives at.
_CAPTCHA_MARKS = (b"/checkcaptcha", b"CheckboxCaptcha", b"AdvancedCaptcha", b"smartcaptcha-status", b"/showcaptcha")
_EMPTY_MARK = b"EmptySearchResults"


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
    if _EMPTY_MARK in html:
        return ParsedPage(())
    raise ParseError("wrong_tab" if any("initialState" in state for state in states) else "no_state")


def parse_xhr(body: bytes) -> ParsedPage:
    """The results of one `serpList/fetch` answer.

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
    """Whether a page bears the marks of a captcha."""
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
    """The blocks of an answer; one that was saved without its envelope counts as a block itself."""
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
    answer = mapping(value)
    kind = text(answer.get("type")).lower()
    return "captcha" in kind or any("captcha" in str(key).lower() for key in list(answer)[:50])


def _parse_lists(lists: list[Mapping[str, Any]], drift: Drift) -> ParsedPage:
    """The pictures of all lists in rank order; a picture that several lists show counts once."""
    images: dict[str, ImageRecord] = {}
    skipped, next_url = 0, ""
    for serp_list in lists:
        next_url = next_url or text(mapping(serp_list.get("navi")).get("next"))
        last_rank = -1
        for key, value in _entities(mapping(serp_list.get("items"))):
            entity = mapping(value)
            engine_id = (text(key) or text(entity.get("id")))[:ID_LENGTH]
            if len(images) + skipped >= MOST_RESULTS:
                raise ParseError("too_complex")
            if not entity or not engine_id:
                skipped += 1
                continue
            rank = position(entity.get("pos"))
            last_rank = last_rank + 1 if rank is None else rank
            if engine_id not in images:
                images[engine_id] = read_entity(engine_id, last_rank, entity, drift)
    ordered = sorted(images.values(), key=lambda image: image.rank)
    return ParsedPage(tuple(ordered), next_url, skipped, drift.report())


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
    """One entity as a record; what is new or missing in it is noted in `drift`."""
    viewer = mapping(entity.get("viewerData"))
    snippet = mapping(entity.get("snippet")) or mapping(viewer.get("snippet"))
    page_url = address(snippet.get("url"))
    original = address(entity.get("origUrl"))
    _note_drift(drift, entity, snippet, viewer, not original)
    variants = _read_variants(entity, viewer, original, page_url)
    title, alt = plain(snippet.get("title")), plain(entity.get("alt"))
    best = variants[0] if variants and variants[0].kind == "original" else NO_VARIANT
    return ImageRecord(
        engine_id=engine_id,
        rank=rank,
        page_url=page_url,
        title=title or alt,
        snippet=plain(snippet.get("text")),
        domain=host_of(page_url) or text(snippet.get("domain")).lower(),
        width=whole(entity.get("origWidth")) or best.width,
        height=whole(entity.get("origHeight")) or best.height,
        bytes=best.bytes,
        is_gif=flag(entity.get("gifLabel")),
        is_censored=flag(entity.get("censored")),
        is_shop=flag(entity.get("ecomShield")),
        extra=_extra(entity, snippet, alt if alt != title and title else ""),
        variants=variants,
    )


def _extra(entity: Mapping[str, Any], snippet: Mapping[str, Any], alt: str) -> dict[str, Any]:
    found: dict[str, Any] = {"alt": alt} if alt else {}
    if docid := text(entity.get("docid")) or text(entity.get("documentid")):
        found["docid"] = docid
    if rim_id := text(entity.get("rimId")):
        found["rim_id"] = rim_id
    if freshness := text(entity.get("freshnessCounter")):
        found["freshness"] = freshness
    if shop_score := whole(snippet.get("shopScore")):
        found["shop_score"] = shop_score
    return found


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
        drift.see("snippet", snippet, SNIPPET_KEYS, EXPECTED_IN_SNIPPET if snippet else MISSING_OBJECT),
        drift.see("viewerData", viewer, VIEWER_KEYS, EXPECTED_IN_VIEWER if viewer else MISSING_OBJECT),
    )
    if all(usual):
        drift.usual = shape


def _read_variants(
    entity: Mapping[str, Any], viewer: Mapping[str, Any], original: str, referer: str
) -> tuple[VariantRecord, ...]:
    """Every address of a picture once, under its best kind, originals first, with the sizes that any mention gave."""
    found: dict[str, list[Any]] = {}  # url -> kind, width, height, bytes
    width, height = entity.get("origWidth"), entity.get("origHeight")
    _add(found, "original", original, width, height)
    if (shown := viewer.get("img_href")) != entity.get("origUrl"):
        _add(found, "original", shown, width, height)
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
        made.sort(key=_kind_order)
    return tuple(made[:MOST_VARIANTS])


def _kind_order(variant: VariantRecord) -> int:
    return _KIND_ORDER[variant.kind]


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
