"""The parts that all pages share: the template environment, links to pictures, thumbnails, and writing the file.

A page is one file that asks nobody for anything: styles and scripts stand in it, a content security policy allows
only them (scripts by their hash) and pictures from disk, and all text is escaped by the templates. Small pictures
stand in the page as data URIs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from lib import __version__
from lib.errors import is_broken_installation
from lib.images.ground import flat_on, layered, may_be_clear
from lib.pages.model import Card
from lib.temporary import clear_dead, write_whole
from lib.work.stream import stream

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
HEAD = 4_096  # characters of a page that hold its metadata
_CARDS = re.compile(r'<meta name="gleaner-cards" content="([^"]*)">')
EMBED_LIMIT = 2_000  # pictures: 2,000 thumbnails of about 6 KB make a page of 12 MB, which browsers open at once

JPEG_QUALITY = 78  # about 6 KB for a 192-pixel photograph; block edges stay invisible at that size


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


def render(template: str, script: str, **values: Any) -> str:
    """One page from `<template>.html.j2`, its style `<template>.css` and the scripts named in `script`."""
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
            **values,
        )
    )


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
    """Writes the page whole or not at all; makes the folder. Characters that UTF-8 cannot hold become `?`."""
    clear_dead(path.parent, target=path.name)  # pages and plans may be written anywhere: nobody else looks there
    write_whole(path, html.encode("utf-8", errors="replace"))
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


def thumbnails(
    files: Iterable[Path | None], page: Path, *, limit: int = EMBED_LIMIT, workers: int = 1
) -> dict[Path, str]:
    """The thumbnail of each file: a data URI, or beyond `limit` files the link to the file itself.

    A file that cannot be decoded has the empty text.
    """
    wanted = list(dict.fromkeys(file for file in files if file is not None))
    if len(wanted) > limit:
        return {file: picture_url(file, page) for file in wanted}
    outcomes = stream(thumbnail_data_uri, wanted, executor="threads" if workers > 1 else "local", workers=workers)
    return {outcome.item: outcome.value or "" for outcome in outcomes}


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


def read_cards(page: Path) -> list[Card]:
    """The totals that a page's head carries; empty where there are none."""
    with page.open(encoding="utf-8", errors="replace") as file:
        match = _CARDS.search(file.read(HEAD))
    try:
        found = json.loads(unescape(match[1])) if match else []
    except ValueError:
        found = []
    return [Card(str(label), value) for label, value in found]


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


def web_link(url: str) -> str:
    """The URL when it is a plain http or https one, else ''."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def host(url: str) -> str:
    """The host of an address as a person reads it, without `www.`."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.") or url
    except ValueError:
        return url


def thumbnail_data_uri(path: str | Path, size: int = 192) -> str:
    """A JPEG data URI of the picture, upright, at most `size` pixels on its long side.

    The empty text for anything that cannot be decoded; never raises for a bad file. Small pictures are not enlarged.
    """
    try:
        from lib.images.decode import opened

        with opened(Path(path)) as picture:
            picture.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a fraction of the size, a cheap first step
            # Within the block: what needs no shrinking is decoded only when it is converted or written.
            buffer = io.BytesIO()
            _opaque(_upright(picture, size)).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    except Exception as error:  # the codec boundary: Pillow's plugins raise whatever their formats make them raise
        if is_broken_installation(error):
            raise
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _upright(picture: Image.Image, size: int) -> Image.Image:
    from PIL import ImageOps

    orientation = picture.getexif().get(0x0112, 1)
    if may_be_clear(picture) or picture.mode == "P":
        picture = layered(picture)  # palette indices and the one transparent colour must not be averaged
    elif picture.mode.startswith("I") or picture.mode == "F":  # grey of 16 or 32 bits, integer or float
        grey = picture.convert("F")
        _, high = grey.getextrema()
        scale = 1 / 257 if isinstance(high, float) and high > 255 else 1.0  # values above 255: a 16-bit scale
        picture = grey.point(lambda value: value * scale + 0.0).convert("L")
    picture.thumbnail((size, size), reducing_gap=2.0)
    if orientation == 1:
        return picture
    picture.getexif()[0x0112] = orientation  # conversions drop it
    return ImageOps.exif_transpose(picture)


def _opaque(picture: Image.Image) -> Image.Image:
    return flat_on(layered(picture), None) if may_be_clear(picture) else picture.convert("RGB")
