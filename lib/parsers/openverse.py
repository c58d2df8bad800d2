"""Openverse: openly licensed pictures, with licence, creator and attribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.domains import host_of
from lib.parsers.drift import Drift
from lib.parsers.raw_json import load_json
from lib.parsers.values import LARGEST, address, flag, mapping, objects, plain, text, whole
from lib.records import ImageRecord, ParsedPage, ParseError, VariantRecord

KNOWN = frozenset(
    [
        "id",
        "title",
        "indexed_on",
        "foreign_landing_url",
        "url",
        "creator",
        "creator_url",
        "license",
        "license_version",
        "license_url",
        "provider",
        "source",
        "category",
        "filesize",
        "filetype",
        "tags",
        "attribution",
        "fields_matched",
        "mature",
        "height",
        "width",
        "thumbnail",
        "detail_url",
        "related_url",
        "unstable__sensitivity",
        "alt_files",
    ]
)
EXPECTED = frozenset({"id", "url", "foreign_landing_url", "license", "license_url", "creator", "attribution"})
MOST_TAGS = 50


def parse_api(body: bytes) -> ParsedPage:
    """One page of results; `next_url` names the next page. Raises ParseError: `not_json`, `no_data`, `refused: …`."""
    value, repaired = load_json(body)
    answer = mapping(value)
    results = answer.get("results")
    if not isinstance(results, list):
        detail = text(answer.get("detail")) or text(answer.get("error"))
        raise ParseError(f"refused: {detail[:120]}" if detail else "no_data")
    drift = Drift(repaired=repaired)
    page, size = whole(answer.get("page")) or 1, whole(answer.get("page_size")) or len(results)
    before = min((page - 1) * size, LARGEST)  # a rank has to fit in a column
    images = [
        _read_result(before + place, found, drift)
        for place, found in enumerate(objects(results))
        if text(found.get("id"))
    ]
    more = page < (whole(answer.get("page_count")) or 0)
    return ParsedPage(tuple(images), f"page={page + 1}" if more else "", 0, drift.report())


def license_name(code: str, version: str) -> str:
    """The short name that licences are known by: `by-sa`, `4.0` is `CC BY-SA 4.0`."""
    code = code.strip().lower()
    names = {"cc0": "CC0", "pdm": "Public Domain Mark"}
    name = names.get(code, f"CC {code.upper()}" if code else "")
    return f"{name} {version}".strip()


def _read_result(rank: int, found: Mapping[str, Any], drift: Drift) -> ImageRecord:
    drift.see("result", found, KNOWN, EXPECTED)
    drift.results += 1
    page_url, original, thumb = (address(found.get(n)) for n in ("foreign_landing_url", "url", "thumbnail"))
    drift.empty_originals += not original
    width, height, size = whole(found.get("width")), whole(found.get("height")), whole(found.get("filesize"))
    variants = [VariantRecord("original", original, width, height, size, page_url)] if original else []
    variants += [VariantRecord("thumb", thumb)] if thumb else []
    tags = [name for tag in objects(found.get("tags"))[:MOST_TAGS] if (name := plain(tag.get("name")))]
    extra = {"source": text(found.get("source")), "provider": text(found.get("provider")), "tags": tags}
    return ImageRecord(
        engine_id=text(found.get("id"))[:200],
        rank=rank,
        page_url=page_url,
        title=plain(found.get("title")),
        domain=host_of(page_url) or host_of(original),
        width=width,
        height=height,
        bytes=size,
        format=text(found.get("filetype")).lower(),
        published_at=text(found.get("indexed_on")),
        is_censored=flag(found.get("mature")),
        creator=plain(found.get("creator")),
        creator_url=address(found.get("creator_url")),
        license=license_name(text(found.get("license")), text(found.get("license_version"))),
        license_url=address(found.get("license_url")),
        attribution=plain(found.get("attribution")),
        extra={name: value for name, value in extra.items() if value},
        variants=tuple(variants),
    )
