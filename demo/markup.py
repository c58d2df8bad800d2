"""The HTML of the gallery: class names a collector may look for are the real ones, the looks are our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

TABS = (("similar", "Similar pictures"), ("sites", "Pages with this picture"), ("about", "About this picture"))


def respond(page: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(text=page, status=status, content_type="text/html", headers=headers)


def layout(title: str, body: str, *, script: bool = False) -> str:
    """A whole page around `body`."""
    tail = '<script src="/_static/results.js" defer></script>' if script else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f'<link rel="stylesheet" href="/_static/gallery.css">{tail}</head><body>{body}</body></html>'
    )


def root(name: str, state: Mapping[str, Any], inside: str = "") -> str:
    """One React-like root: its state as JSON in an attribute."""
    packed = escape(json.dumps(state, ensure_ascii=False, separators=(",", ":")), quote=True)
    return f'<div class="Root" id="{name}" data-state="{packed}">{inside}</div>'


def header(words: str = "") -> str:
    """The search form, with the way in for a picture."""
    inside = (
        '<header class="HeaderDesktop"><a class="HeaderLogo" href="/">offline gallery</a>'
        '<form class="HeaderForm" action="/images/search" role="search">'
        f'<input class="HeaderForm-Input" name="text" value="{escape(words, quote=True)}"'
        ' placeholder="Words" aria-label="Words">'
        '<button class="HeaderForm-Submit" type="submit">Find</button></form>'
        '<form class="CbirPanel-Main" method="post" enctype="multipart/form-data"'
        ' action="/images/search?rpt=imageview&amp;cbir_page=similar">'
        '<label class="HeaderDesktopActions-CbirButton">Search by picture'
        '<input class="CbirCore-FileInput" type="file" name="upfile" accept="image/*"'
        ' onchange="this.form.submit()"></label>'
        "</form></header>"
    )
    return root("HeaderDesktop-1", {"initialState": {"header": {"service": "images"}}}, inside)


def results_page(state: Mapping[str, Any], query: str, tab: str, asked: Mapping[str, str]) -> str:
    """The page of a search: two small roots and the `ImagesApp` root that carries the state."""
    words = query.removeprefix("text:") if query.startswith("text:") else ""
    tabs = "" if words else _tabs(tab, asked)
    rows = _rows(state)
    if rows:
        more = state["serpList"].get("navi", {}).get("next")
        inside = f'<div class="SerpList">{"".join(_tile(row) for row in rows)}</div>{_more(bool(more))}'
    elif "serpList" in state:
        inside = (
            '<div class="EmptySearchResults"><div class="EmptySearchResults-Title">Nothing was found</div>'
            '<div class="EmptySearchResults-Subtitle">По вашему запросу ничего не нашли</div></div>'
        )
    else:
        inside = _other_tab(state)
    page = header(words) + root("ImagesApp-1f3c", {"initialState": dict(state)}, tabs + inside)
    page += root("AdvRsya-1", {"initialState": {"advRsyaSearchColumn": None}})
    return layout(f"{words or 'Search by picture'} — offline gallery", page, script=True)


def _rows(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = state.get("serpList", {}).get("items", {})
    return [items["entities"][key] for key in items.get("keys", [])]


def _tabs(tab: str, asked: Mapping[str, str]) -> str:
    kept = {name: asked[name] for name in ("cbir_id", "rpt", "url") if name in asked}
    links = []
    for name, title in TABS:
        link = "/images/search?" + urlencode(kept | ({"cbir_page": name} if name != "about" else {}))
        here = " CbirNavigation-TabsItem_active" if name == tab else ""
        links.append(
            f'<a class="CbirNavigation-TabsItem CbirNavigation-TabsItem_name_{name}-page{here}"'
            f' data-cbir-page-type="{name}"'
            f' href="{escape(link, quote=True)}">{title}</a>'
        )
    own = (
        f'<img class="CbirPreview" src="{escape(asked["url"], quote=True)}" alt="">'
        if asked.get("url", "").startswith("http://127.")
        else ""
    )
    return f'<nav class="CbirNavigation">{own}{"".join(links)}</nav>'


def _tile(row: Mapping[str, Any]) -> str:
    title, site = escape(row.get("alt") or "", quote=True), escape((row.get("snippet") or {}).get("domain", ""))
    size = f"{row.get('origWidth')}×{row.get('origHeight')}"
    return (
        f'<div class="SerpItem" data-id="{row["id"]}"><div class="SerpItem-Thumb">'
        f'<a class="Link" href="{escape(row["url"], quote=True)}">'
        f'<img class="ImagesContentImage-Image" src="{escape(row["image"], quote=True)}"'
        f' width="{row["width"]}" height="{row["height"]}"'
        f' alt="{title}" loading="lazy"></a></div><div class="SerpItem-Title">{title}</div>'
        f'<div class="SerpItem-Site">{site} · {size}</div></div>'
    )


def _more(there_is: bool) -> str:
    hidden = "" if there_is else " hidden"
    return (
        f'<div class="FetchListButton"{hidden}><button type="button" class="Button FetchListButton-Button">'
        "Показать ещё · Show more</button>"
        '<div class="FetchListNotice FetchListButton-Error" hidden>The next pictures did not come.</div></div>'
    )


def _other_tab(state: Mapping[str, Any]) -> str:
    sites = state.get("cbirSites", {}).get("sites", [])
    if sites:
        rows = "".join(
            f'<li class="CbirSites-Item"><img src="{escape(site["thumb"]["url"], quote=True)}" alt="" loading="lazy">'
            f"<span><b>{escape(site['title'])}</b><br>{escape(site['domain'])}</span></li>"
            for site in sites
        )
        return f'<ul class="CbirSites">{rows}</ul>'
    tags = "".join(
        f'<span class="CbirTag">{escape(tag["text"])}</span>' for tag in state.get("cbirTags", {}).get("tags", [])
    )
    return f'<div class="CbirAbout"><h2>About this picture</h2>{tags or "<p>Nothing is known of it.</p>"}</div>'


def start_page() -> str:
    state = {"initialState": {"location": "/images/"}}
    return layout(
        "Offline gallery",
        header() + root("ImagesApp-start", state, '<p class="Hint">Type a word, or choose a picture.</p>'),
    )


def message_page(title: str, text: str) -> str:
    return layout(title, f'<main class="Message"><h1>{escape(title)}</h1><p>{escape(text)}</p></main>')


def captcha_page(back: str) -> str:
    """A check for robots in the structure of the engine's own; the button sets a cookie and leads back."""
    action = "/checkcaptcha?key=0&retpath=" + quote(back, safe="")
    body = (
        f'<main class="Message"><form method="POST" action="{escape(action, quote=True)}">'
        "<h1>Please confirm that you and not a robot are sending requests</h1>"
        '<div class="CheckboxCaptcha" data-testid="checkbox-captcha"><div class="CheckboxCaptcha-Anchor">'
        '<input type="submit" id="js-button" class="CheckboxCaptcha-Button" role="checkbox" aria-checked="false"'
        ' value="I am not a robot">'
        '</div></div><span id="smartcaptcha-status"></span></form>'
        '<p class="Hint">A pretended captcha: the button lets this browser pass.</p></main>'
    )
    return layout("Are you not a robot?", body)


def plain_captcha_page(back: str) -> str:
    """A check for robots in nobody's structure; its button too sets the cookie and leads back."""
    action = "/checkcaptcha?retpath=" + quote(back, safe="")
    body = (
        f'<main class="Message"><form id="captcha" method="POST" action="{escape(action, quote=True)}">'
        "<h1>One more step</h1><p>There was unusual traffic from your network. Please solve the captcha.</p>"
        '<button type="submit" class="Button">I am not a robot</button></form></main>'
    )
    return layout("Verification", body)


def consent_page(back: str) -> str:
    action = "/agree?retpath=" + quote(back, safe="")
    body = (
        f'<main class="Message"><form class="gdpr-popup" method="POST" action="{escape(action, quote=True)}">'
        "<h1>Cookies</h1><p>We use cookies to remember that you saw this notice.</p>"
        '<button type="submit" class="Button gdpr-popup-v3-button-all">Allow all</button> '
        '<button type="submit" class="Button" name="only" value="1">Allow essential cookies</button></form></main>'
    )
    return layout("Cookies", body)


def index_page(facts: Mapping[str, Any], rows: list[tuple[str, str, str]]) -> str:
    """What people see at `/`: what this is, a way in, and some pictures as (link, thumbnail, title)."""
    tiles = "".join(
        f'<a class="SerpItem" href="{escape(link, quote=True)}"><div class="SerpItem-Thumb">'
        f'<img src="{escape(thumb, quote=True)}" alt="{escape(title, quote=True)}" loading="lazy"></div>'
        f'<div class="SerpItem-Title">{escape(title)}</div></a>'
        for link, thumb, title in rows
    )
    body = (
        header()
        + '<main class="Intro"><h1>An offline picture search</h1>'
        + f"<p>{facts['pictures']} pictures made on this machine: windows on two photographs, drawings in code,"
        " and altered copies of both."
        f" They lie on {facts['hosts']} hosts, some of which are slow, broken or gone, as on the web."
        " Page addresses are invented. Nothing here leaves this computer.</p>"
        '<p><a href="/_control">Counters and faults</a> · <a href="/images/search?text=flower">flower</a>'
        ' · <a href="/images/search?text=%D0%B3%D0%BE%D1%80%D0%BE%D0%B4">город</a>'
        ' · <a href="/images/search?text=temple">temple</a></p>' + f'<div class="SerpList">{tiles}</div></main>'
    )
    return layout("Offline gallery", body)
