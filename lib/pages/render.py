"""The parts that all pages share: the template environment, links to pictures, and writing the file.

A page is one file that asks nobody for anything: styles and scripts stand in it, a content security policy allows
only them (scripts by their hash) and pictures from disk, and all text is escaped by the templates. Small pictures
stand in the page as data URIs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lib import __version__
from lib.pages.model import Card
from lib.pages.thumbnails import clear_stale
from lib.temporary import clear_dead, write_whole
from lib.workspace import DATABASE_NAME, Workspace

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
INDEX = "index.html"  # in `reports/`: the front door of a workspace
HEAD = 8_192  # characters of a page that hold its metadata
_CARDS = re.compile(r'<meta name="gleaner-cards" content="([^"]*)">')
_MADE = re.compile(r'<meta name="gleaner-made" content="([^"]*)">')
_TITLE = re.compile(r"<title>([^<]*)</title>")


@lru_cache(maxsize=1)
def environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for show in (number, percent, filesize, web_link, host, moment, cards_json):
        env.filters[show.__name__] = show
    return env


def render(template: str, script: str, page: Path, **values: Any) -> str:
    """One page from `<template>.html.j2`, its style `<template>.css` and the scripts named in `script`.

    `page` is where it will lie, from which it links to the workspace's front door.
    """
    from markupsafe import Markup

    theme, body = _source("theme.js"), "\n".join(_source(name) for name in ("common.js", script))
    return (
        environment()
        .get_template(f"{template}.html.j2")
        .render(
            css=Markup(_source("common.css") + _source(f"{template}.css")),
            theme_script=Markup(theme),
            page_script=Markup(body),
            policy=_policy(theme, body),
            version=__version__,
            home=home_of(page),
            **values,
        )
    )


def home_of(page: Path) -> str:
    """The link from a page to the index of the workspace it lies in; '' for the index itself and outside of any."""
    place = Path(os.path.abspath(page))
    root = next((folder for folder in place.parents if (folder / DATABASE_NAME).is_file()), None)
    index = None if root is None else Workspace(root).reports / INDEX
    return "" if index in (None, place) else picture_url(index, page)


@lru_cache(maxsize=32)
def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src 'self' file: data: blob:; base-uri 'none'; form-action 'none'"
    )


def place_of_page(given: Path | None, usual: Path, *, only_shown: bool) -> Path:
    """Returns where a page goes: to the file that `--page` names, else to its usual place in `reports/`.

    Where things are only shown, the usual place is left alone, since a dry run writes nothing in the workspace and the
    page there tells of the last run that did something: the page goes to a fresh temporary folder, which only the user
    can read.
    """
    if given is not None:
        return given
    return Path(tempfile.mkdtemp(prefix="gleaner-")) / usual.name if only_shown else usual


def write_page(path: Path, html: str) -> Path:
    """Writes the page whole or not at all; makes the folder, and clears the thumbnails that are shown no more.

    Characters that UTF-8 cannot hold become `?`.
    """
    clear_dead(path.parent, target=path.name)  # pages and plans may be written anywhere: nobody else looks there
    write_whole(path, html.encode("utf-8", errors="replace"))
    clear_stale(path, html)
    return path


def picture_url(file: Path | None, page: Path) -> str:
    """The link from the page to a file, relative where there is a relative way, percent-encoded; '' for none."""
    if file is None:
        return ""
    target = os.path.abspath(file)
    try:
        relative = os.path.relpath(target, os.path.abspath(page.parent))
    except ValueError:  # another drive on Windows
        return Path(target).as_uri()
    # Bytes, so that names that are no UTF-8 are linked by what they are; "./" keeps a colon from reading as a scheme.
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))


def script_json(value: Any) -> Any:
    """JSON that is safe inside a script element: no `<`, `>` or `&`, and no line separators of JavaScript."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def cards_json(cards: Sequence[Card]) -> str:
    """The totals of a page as JSON, which its head carries for the index page."""
    return json.dumps([[card.label, card.value] for card in cards], ensure_ascii=False)


@dataclass(frozen=True)
class PageHead:
    """The head of a finished page: its title, when it was made, and its totals."""

    title: str
    generated: str
    cards: Sequence[Card]


def read_head(page: Path) -> PageHead:
    """Reads what a page says of itself; empty where it says nothing."""
    with page.open(encoding="utf-8", errors="replace") as file:
        head = file.read(HEAD)
    title, generated, cards = (
        unescape(match[1]) if (match := pattern.search(head)) else "" for pattern in (_TITLE, _MADE, _CARDS)
    )
    try:
        found = [Card(str(label), value) for label, value in json.loads(cards)] if cards else []
    except (ValueError, TypeError):
        found = []
    return PageHead(title, generated, found)


def number(value: int | float | str | None) -> str:
    """1234567 as "1,234,567", 3.14159 as "3.14", text as it is, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else value


def percent(share: float | None) -> str:
    """0.1234 as "12.3 %"; a share that is small but not nothing is never shown as 0."""
    if share is None:
        return "–"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def filesize(count: int | None) -> str:
    """Bytes in decimal units, as file managers show them."""
    if count is None:
        return "–"
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"


def moment(text: str) -> str:
    """An ISO time as a person reads it: "2025-03-01T12:00:05.1Z" as "2025-03-01 12:00 UTC"; other text as it is."""
    if len(text) >= 16 and text[10] == "T":
        utc = text.endswith(("Z", "+00:00"))
        return f"{text[:10]} {text[11:16]}{' UTC' if utc else ''}"
    return text


def host(url: str) -> str:
    """The host of an address as a person reads it, without `www.`."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.") or url
    except ValueError:
        return url


def web_link(url: str) -> str:
    """The URL when it is a plain http or https one, else ''."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""
