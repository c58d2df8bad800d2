"""The records of a Yandex Images answer: ENTITY, VARIANT and SITE objects, with the oddities of the real ones."""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import quote, urlsplit

from demo.catalog import THUMB_SIDE, Address, Picture, digest, shrunk
from demo.site import Site


def serp_list(site: Site, found: list[Picture], page: int, next_path: str) -> dict[str, Any]:
    """The `serpList` object of one page; `navi.next` is there only if another page follows."""
    rows = site.page(found, page)
    first = page * site.options.page_size
    entities = {picture.id: entity(site, picture, first + place) for place, picture in enumerate(rows)}
    navi = {"next": next_path} if site.has_page(found, page + 1) else {}
    return {
        "items": {"keys": list(entities), "entities": entities},
        "navi": navi,
        "loading": False,
        "page": page,
    }


def entity(site: Site, picture: Picture, pos: int) -> dict[str, Any]:
    """One picture as the engine describes it at rank `pos`."""
    original = site.link(picture.original)
    width, height = shrunk(picture.size, THUMB_SIDE)
    viewer = f"/images/search?pos={pos}&img_url={quote(original, safe='')}&rpt=imagelike"
    record: dict[str, Any] = {
        "id": picture.id,
        "docid": "Z" + digest(f"doc {picture.id}", 16).upper(),
        "documentid": "Z" + digest(f"doc {picture.id}", 16).upper(),
        "reqid": f"{int(digest(picture.id, 12), 16)}-{site.options.seed}-IMG",
        "rimId": digest(f"rim {picture.id}"),
        "pos": pos,
        "url": viewer,
        "origUrl": original,
        "image": thumb_url(site, picture),
        "alt": picture.title,
        "width": width,
        "height": height,
        "origWidth": picture.claimed[0],
        "origHeight": picture.claimed[1],
        "gifLabel": picture.animated,
        "snippet": None if "no-snippet" in picture.quirks else snippet(picture),
        "viewerData": None if "no-viewer" in picture.quirks else viewer_data(site, picture, viewer),
    }
    if "bare" not in picture.quirks:
        record["freshnessCounter"] = "fresh" if picture.number % 9 == 0 else "normal"
        record["ecomShield"] = "shop" in picture.quirks
        record["censored"] = "censored" in picture.quirks
        record["loading"] = "eager" if pos < 12 else "lazy"
    return record


def snippet(picture: Picture) -> dict[str, Any]:
    first, _, rest = html.escape(picture.title, quote=False).partition(" ")
    return {
        "title": picture.title,
        "hasTitle": bool(picture.title),
        "text": f"<b>{first}</b> {rest}: {', '.join(picture.tags[1:4])}",
        "url": picture.page_url,
        "domain": (urlsplit(picture.page_url).hostname or "").removeprefix("www."),
        "shopScore": 70 if "shop" in picture.quirks else 0,
    }


def viewer_data(site: Site, picture: Picture, viewer: str) -> dict[str, Any]:
    w, h = shrunk(picture.size, THUMB_SIDE)
    size = {"size": {"width": w, "height": h}} if "old-thumb" in picture.quirks else {"w": w, "h": h}
    data: dict[str, Any] = {
        "preview": [_preview(site, picture)],
        "dups": [variant(site, dup) for dup in picture.dups] + _useless(picture),
        "thumb": {"url": "http:" + thumb_url(site, picture), **size},
        "img_href": site.link(picture.original),
        "detail_url": viewer,
        "snippet": None if "no-snippet" in picture.quirks else snippet(picture),
    }
    if "bare" in picture.quirks:
        return {"thumb": data["thumb"], "dups": []}
    return data


def _useless(picture: Picture) -> list[dict[str, Any]]:
    """Addresses that lead nowhere, as pages hand them to engines now and then: work for step 4."""
    number = int(picture.id[:4], 16)
    if number % 17 == 0:
        return [{"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "fileSizeInBytes": 35, "w": 1, "h": 1}]
    if number % 23 == 0:
        return [{"url": "http:///lost host/picture.jpg", "fileSizeInBytes": 0, "w": 640, "h": 480}]
    return []


def _preview(site: Site, picture: Picture) -> dict[str, Any]:
    """The source chosen for the viewer: the original, or a smaller copy that may name its true origin."""
    if picture.preview is None:
        return variant(site, picture.original, picture.claimed)
    record = variant(site, picture.preview)
    if "origin" in picture.quirks:
        origin = {"w": picture.claimed[0], "h": picture.claimed[1], "url": site.link(picture.original)}
        record |= {"isMixedImage": True, "origin": origin}
    return record


def variant(site: Site, address: Address, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """One VARIANT. The byte count is a guess from the area, as good as an engine's often is."""
    w, h = size or address.size
    return {"url": site.link(address), "fileSizeInBytes": w * h // 6 + 2048, "w": w, "h": h}


def thumb_url(site: Site, picture: Picture) -> str:
    """The engine's own thumbnail, without a scheme."""
    return f"{site.url.removeprefix('http:')}/i?id={picture.id}-{1_000_000 + picture.number}-images-thumbs&n=13"


def page_record(site: Site, picture: Picture) -> dict[str, Any]:
    """One SITE of the tab "pages with this picture"."""
    w, h = shrunk(picture.size, THUMB_SIDE)
    return {
        "title": picture.title,
        "description": ", ".join(picture.tags),
        "url": picture.page_url,
        "domain": snippet(picture)["domain"],
        "thumb": {"url": thumb_url(site, picture), "width": w, "height": h},
        "originalImage": {
            "url": site.link(picture.original),
            "width": picture.claimed[0],
            "height": picture.claimed[1],
        },
    }
