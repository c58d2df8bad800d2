"""Reading what an engine sent: any value may be null, missing, of another type, or hostile.

JSON is fast when it is right, repaired when it is nearly right, and a short reason when it is not. XML may have neither
document types nor entities. Both are bounded in size.

`Drift` notes where a response's shape differs from the one that a parser was written for.
The report is a small dictionary, empty when nothing is new:

    unknown          {"entity.newKey": how many results have it}
    missing          {"entity.alt": how many results lack a key that all should have}
    empty_originals  share of results without the address of the original, 0..1
    left_out         {"repeated": 2, "no_address": 1}: how many entries are no pictures of their own, by reason
    repaired         true when the JSON had to be mended before it could be read
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import orjson

from lib.records import ImageRecord, ParseError, VariantRecord
from lib.text import known, storable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

TEXT_LIMIT = 20_000  # characters; a title or snippet longer than this is no title
URL_LIMIT = 8_192  # characters; servers refuse longer addresses
LARGEST = 2**53 - 1  # the largest whole number that JSON carries safely, far below SQLite's limit
_DIGITS = 16  # of LARGEST; int() of a million digits would take minutes
_TAG = re.compile(r"<[^<>]*>")
# Markup that may hide what is in it; all other markup is taken out by `_TAG`, which is quicker.
_MAY_HIDE = re.compile(
    r"<!|<\?|hidden|invisible|sr-only|screen-reader|display|visibility|<(?:style|script|template|head|title|noscript)\b",
    re.IGNORECASE,
)
_HIDING_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)", re.IGNORECASE)
_HIDING_CLASSES = frozenset({"hidden", "visually-hidden", "sr-only", "mw-hidden", "invisible", "screen-reader-text"})
_UNSHOWN = frozenset({"style", "script", "template", "head", "title", "noscript", "datalist", "object"})
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
# Characters without a form: zero-width blanks, soft hyphens, marks of direction. Joiners stay; they shape words.
_INVISIBLE = dict.fromkeys(
    [
        0xAD,
        0x180E,
        0x200B,
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2065),
        *range(0x2066, 0x206A),
        0xFEFF,
    ]
)
_NO: Mapping[str, Any] = {}
_FALSE_WORDS = frozenset({"", "0", "false", "no", "off", "none", "null"})

# Recorded answers stay below 3 MiB and 10,000 objects and lists. Both limits bound the memory that a hostile file can
# take: an empty object costs 64 bytes, and one that is read as an address about 500.
LARGEST_BODY = 16 * 2**20
MOST_CONTAINERS = 300_000

_CONTROLS = dict.fromkeys(range(32), " ")
_ESCAPE = re.compile(
    r"\\(?:[\"\\/bfnrt]"
    r"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u(?P<lone>[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|u[0-9a-fA-F]{4}"
    r"|(?P<wrong>.?))",
    re.DOTALL,
)

MOST_TAGS = 500_000
# Entity bombs and references to files need a document type, and no response that we read has one.
_FORBIDDEN = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)

MOST_KEYS = 40  # names kept: a hostile response may have a million
NAME_LENGTH = 60


def mapping(value: Any) -> Mapping[str, Any]:
    """The object, or an empty one for anything else."""
    return value if isinstance(value, dict) else _NO


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; what is no object is left out."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """Text without outer blanks, NULs and half characters; numbers as written; empty for anything else."""
    if isinstance(value, str):
        value = value[:TEXT_LIMIT].strip() if len(value) > TEXT_LIMIT else value.strip()
        return value if value.isascii() and "\x00" not in value else storable(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    return str(value)[:TEXT_LIMIT]


def plain(value: Any) -> str:
    """Text without markup, character references and runs of blanks."""
    found = value if type(value) is str and len(value) <= TEXT_LIMIT and "\x00" not in value else text(value)
    if "<" in found:
        # The only ones that engines send as a rule, and mostly so that no blanks meet.
        found = found.replace(" <b>", " ").replace("</b> ", " ")
        if "<" in found and "<" in (found := found.replace("<b>", " ").replace("</b>", " ")):
            found = _TAG.sub(" ", _shown(found) if _MAY_HIDE.search(found) else found)
    if "&" in found:
        found = unescape(found).replace("\x00", "")
    # What is printable has no blank but the space, and no character without a form: a third of the time.
    if found.isprintable():
        while "  " in found:
            found = found.replace("  ", " ")
        return found.strip()
    return storable(" ".join(found.translate(_INVISIBLE).split()))


def _shown(markup: str) -> str:
    """Markup without what a browser would not show."""
    reader = _ShownText()
    reader.feed(markup)
    reader.close()
    return "".join(reader.parts)


class _ShownText(HTMLParser):
    """Collects the text outside hidden elements, comments, styles and scripts; tags become blanks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self.open: list[tuple[str, bool]] = []  # (tag, whether it hides what is in it)
        self.hiding = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.parts.append(" ")
        if tag in _VOID:
            return
        values = dict(attributes)
        classes = (values.get("class") or "").lower().split()
        hides = (
            tag in _UNSHOWN
            or ("hidden" in values and (values["hidden"] or "").lower() != "until-found")
            or _HIDING_STYLE.search(values.get("style") or "") is not None
            or not _HIDING_CLASSES.isdisjoint(classes)
        )
        self.open.append((tag, hides))
        self.hiding += hides

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(" ")
        if any(tag == name for name, _ in self.open):
            while self.open:
                name, hides = self.open.pop()
                self.hiding -= hides
                if name == tag:
                    return

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.hiding:
            self.parts.append(data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")


def fact(value: Any) -> str:
    """Plain text of a creator, a licence, a credit; empty where it only says that nothing is known."""
    return known(plain(value))


def link(value: Any) -> str:
    """The address of a web page; empty for what is no http(s) address."""
    found = address(value)
    return found if found[:8].lower().startswith(("http://", "https://")) else ""


def whole(value: Any) -> int | None:
    """A positive whole number from a number or its text; None for zero, nonsense and what no picture can have."""
    if type(value) is int:
        return value if 0 < value <= LARGEST else None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        value = value.strip()
        if not value or len(value) > _DIGITS + 4:
            return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and 1 <= number <= LARGEST else None


def position(value: Any) -> int | None:
    """A whole number from 0, as ranks are."""
    if type(value) is int and value == 0:
        return 0
    if isinstance(value, str) and value.strip() == "0":
        return 0
    return whole(value)


def flag(value: Any) -> bool:
    """A truth value, also when written as text or number. An object or a list (a badge's data) counts as true."""
    if value is True or value is False:
        return value is True
    return value.strip().lower() not in _FALSE_WORDS if isinstance(value, str) else bool(value)


def address(value: Any) -> str:
    """A URL as sent, scheme-less `//` completed to https; empty for what is no text or is absurdly long."""
    if type(value) is str and len(value) <= URL_LIMIT and "\x00" not in value:
        found = value.strip()
    elif not value:
        return ""
    else:
        found = text(value)
        if len(found) > URL_LIMIT:
            return ""
    if not found.isascii():
        found = storable(found)
    return "https:" + found if found.startswith("//") else found


def filled(**values: Any) -> dict[str, Any]:
    """The values that say something: what a record keeps in `extra`."""
    return {name: value for name, value in values.items() if value}


def digest(url: str) -> str:
    """The id of a row of a list: a digest of its address."""
    return hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:32]


def addressed(*variants: VariantRecord) -> tuple[VariantRecord, ...]:
    """The variants that have an address."""
    return tuple(variant for variant in variants if variant.url)


def distinct(variants: Iterable[VariantRecord]) -> tuple[VariantRecord, ...]:
    """The variants that have an address, each address once: the first that names it."""
    found: dict[str, VariantRecord] = {}
    for variant in addressed(*variants):
        found.setdefault(variant.url, variant)
    return tuple(found.values())


def load_object(body: bytes | str) -> tuple[Mapping[str, Any], Drift]:
    """The JSON object in a response, or in text that was cut out of a page, and a `Drift` to go on with.

    Raises ParseError as `load_json` does; what is no object is read as an empty one.
    """
    value, repaired = load_json_text(body) if isinstance(body, str) else load_json(body)
    return mapping(value), Drift(repaired=repaired)


def load_json(body: bytes) -> tuple[Any, bool]:
    """The value, and whether invalid escapes, lone surrogates, control characters or bad UTF-8 had to be mended.

    Raises ParseError with `too_large`, `too_complex` or `not_json`.
    """
    check_size(body)
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError:
        return _load_repaired(body.removeprefix(codecs.BOM_UTF8).decode(errors="replace")), True


def load_json_text(found: str) -> tuple[Any, bool]:
    """Like `load_json`, for text that was cut out of a page."""
    try:
        return orjson.loads(found), False
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return _load_repaired(found.encode("utf-8", "replace").decode("utf-8")), True


def check_size(body: bytes) -> None:
    """Refuses what would not fit in memory once parsed."""
    if len(body) > LARGEST_BODY:
        raise ParseError("too_large")
    if len(body) > MOST_CONTAINERS and body.count(b"{") + body.count(b"[") > MOST_CONTAINERS:
        raise ParseError("too_complex")


def load_exact(body: bytes) -> Any:
    """Returns the value with its numbers as they stand there, as text where a float would have other digits.

    Raises ParseError as `load_json` does. For rows and sidecars, whose numbers may be somebody's ids.
    """
    value, _ = load_json(body)
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if any(_has_large(one) for one in held):
        return _load_lenient(body.removeprefix(codecs.BOM_UTF8).decode(errors="replace"))
    return value


def _has_large(value: Any) -> bool:
    """True for a float that may have been a whole number of more digits than it holds, also one floor down."""
    if type(value) is float:
        return not -LARGEST <= value <= LARGEST
    if type(value) is dict:
        return any(type(one) is float and not -LARGEST <= one <= LARGEST for one in value.values())
    return False


def _load_repaired(found: str) -> Any:
    mended = _ESCAPE.sub(_right_escape, found.translate(_CONTROLS))
    try:
        return orjson.loads(mended)
    except orjson.JSONDecodeError:
        return _load_lenient(mended)


def _load_lenient(found: str) -> Any:
    """Reads what Python, pandas and JavaScript write and JSON has no word for: NaN and Infinity are no value."""
    try:
        return _LENIENT.decode(found)
    except (ValueError, RecursionError):
        raise ParseError("not_json") from None


def _exact_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MOST_DIGITS else digits[:TEXT_LIMIT]


def _exact_float(digits: str) -> float | str:
    """A number beyond what a float tells from its neighbours stays as written: it is somebody's id."""
    number = float(digits)
    return number if -LARGEST <= number <= LARGEST else digits[:TEXT_LIMIT]


_MOST_DIGITS = 1000  # of a whole number that Python makes one of at once
_LENIENT = json.JSONDecoder(
    strict=False, parse_constant=lambda name: None, parse_int=_exact_integer, parse_float=_exact_float
)


def lenient_decoder() -> json.JSONDecoder:
    """Returns the decoder that reads values out of a longer text, numbers exact and NaN as no value."""
    return _LENIENT


def _right_escape(match: re.Match[str]) -> str:
    if match["lone"]:
        return "\\ufffd"
    if match["wrong"] == "'":
        return "'"  # Baidu escapes apostrophes, as JavaScript allows and JSON does not
    if match["wrong"] is not None:
        return "\\\\" + match["wrong"]
    return match[0]


def load_xml(body: bytes) -> Element:
    """The root element. Raises ParseError: `too_large`, `too_complex`, `not_xml`."""
    from xml.etree import ElementTree  # one engine answers in XML

    if len(body) > LARGEST_BODY:
        raise ParseError("too_large")
    if body.count(b"<") > MOST_TAGS:
        raise ParseError("too_complex")
    # In UTF-16 the words above are spelled with NULs between their letters.
    if _FORBIDDEN.search(body) or b"\x00" in body[:200]:
        raise ParseError("not_xml")
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        raise ParseError("not_xml") from None


@dataclass
class Drift:
    """Counts while a parser walks over a response; `report()` gives the dictionary."""

    unknown: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    results: int = 0
    empty_originals: int = 0
    repaired: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    plain: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the last keys of each part that were as expected
    usual: tuple[Any, ...] = ()  # for parsers of many parts: the last shape in which each of them was as expected

    def see(self, part: str, found: Mapping[str, Any], known: Set[str], expected: Set[str]) -> bool:
        """Notes the keys of one object that are new, and those that it should have and has not; True without any.

        What is known and expected may depend on the part and on the object's keys only.
        """
        keys = tuple(found)
        if self.plain.get(part) == keys:
            return True
        if found.keys() <= known and expected <= found.keys():
            self.plain[part] = keys
            return True
        if not found.keys() <= known:
            for key in found.keys() - known:
                name = f"{part}.{key[:NAME_LENGTH]}"
                if name in self.unknown or len(self.unknown) < MOST_KEYS:
                    self.unknown[name] += 1
        if not expected <= found.keys():
            self.missing.update(f"{part}.{key}" for key in expected - found.keys())
        return False

    def note(
        self, part: str, found: Mapping[str, Any], known: Set[str], expected: Set[str], *, no_original: bool = False
    ) -> None:
        """Counts one result, and what is new or missing in it."""
        self.results += 1
        self.empty_originals += no_original
        self.see(part, found, known, expected)

    def report(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, counts in (("unknown", self.unknown), ("missing", self.missing)):
            if counts:
                made[name] = dict(sorted(counts.items()))
        if self.empty_originals:
            made["empty_originals"] = round(self.empty_originals / self.results, 4)
        if self.left_out:
            made["left_out"] = dict(sorted(self.left_out.items()))
        if self.repaired:
            made["repaired"] = True
        return made


@dataclass
class PagePictures:
    """The pictures of one page in the order in which it shows them, each once; what is left out is counted in `drift`.

    `skipped` counts entries that are no pictures. A picture that stands there twice is no such entry.
    """

    drift: Drift
    found: dict[str, ImageRecord] = field(default_factory=dict)
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.found)

    def add(self, record: ImageRecord) -> None:
        if self.found.setdefault(record.engine_id, record) is not record:
            self.drift.left_out["repeated"] += 1

    def skip(self, reason: str) -> None:
        self.skipped += 1
        self.drift.left_out[reason] += 1

    def in_order(self) -> tuple[ImageRecord, ...]:
        """As the page shows them."""
        return tuple(self.found.values())

    def by_rank(self) -> tuple[ImageRecord, ...]:
        """By the ranks that the engine names."""
        return tuple(sorted(self.found.values(), key=attrgetter("rank")))
