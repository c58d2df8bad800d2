"""Facts of a picture under the names that lists, sidecars and tables of others give them: one set of rules for all.

A name counts without case, blanks and punctuation, and one inside an object with the object's name before it, so that
`Image URL`, `image_url` and `{"image": {"url": …}}` are one column. A value that says nothing (`?`, `n/a`) is none, a
page is no picture, and a width that a tool made is not the original's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from html import unescape
from itertools import islice
from typing import Any

from lib.domains import host_of
from lib.engines.addresses import unwrap
from lib.engines.openverse import license_name
from lib.engines.parsing import address, digest, plain, text, whole
from lib.records import ImageRecord, VariantRecord
from lib.text import known

# Names that stand for the picture itself, and names that may also stand for its page where one of those is there.
PICTURE_NAMES = (
    *("originalurl", "imageurl", "imgurl", "imageoriginalurl", "photoimageurl", "contenturl", "imagecontenturl"),
    *("fileurl", "mediaurl", "objurl", "sourceimageurl", "cocourl", "urlo", "urlsraw", "urlsfull", "srcoriginal"),
    *("imagesrc", "imagelink", "imglink", "imagehref"),
)
ANY_NAMES = ("url", "link", "src", "photourl", "pictureurl", "uri")
URL_NAMES = (*PICTURE_NAMES, *ANY_NAMES)
FACTS: dict[str, tuple[str, ...]] = {
    "page": (
        *("pageurl", "webpageurl", "posturl", "permalink", "foreignlandingurl", "originallandingurl", "landingurl"),
        *("hostpageurl", "descriptionurl", "photourl", "sourceurl", "fromurl", "source", "referer"),
    ),
    "title": (
        *("title", "caption", "alt", "alttext", "topcaption", "frompagetitle", "phototitle", "imagecaption"),
        *("captionreferencedescription", "rawcaption", "text", "name"),
    ),
    "snippet": ("description", "photodescription", "content", "snippet", "text", "caption"),
    "creator": (
        *("creator", "artist", "author", "photographer", "tagstringartist", "creatorname", "artistname"),
        *("authorname", "photographername", "owner", "ownername", "user", "username"),
    ),
    "firstname": ("photographerfirstname",),
    "lastname": ("photographerlastname",),
    "creator_url": ("creatorurl", "authorurl", "authorprofileurl", "photographerurl", "ownerurl", "userurl"),
    "license": ("licensename", "license", "licence", "licencename", "licenseshortname"),
    "license_url": ("licenseurl", "licenceurl", "licenselink", "licensehref", "license", "licence"),
    "attribution": ("attribution", "creditline", "attributiontext"),
    "published_at": ("date", "publishedat", "datepublished", "createdat", "uploaddate", "photosubmittedat"),
    "tags": ("tags", "keywords", "tagstring"),
    "query": ("query", "keyword", "searchtags", "searchterm"),
    "source": ("category", "engine", "site"),
    "id": ("id", "uid", "key", "imageid", "photoid", "sampleid"),
    "width": ("originalwidth", "photowidth", "imagewidth", "width", "w"),
    "height": ("originalheight", "photoheight", "imageheight", "height", "h"),
    "bytes": ("originalsize", "filesize", "filesizebytes"),
    "thumb": ("thumbnail300kurl", "thumbnailurl", "thumburl", "thumbnail", "previewurl"),
}
# Names by which a row shows that its width is one that a tool made.
_SIGNS = ("status", "contenttype")
WANTED = frozenset(name for names in (URL_NAMES, _SIGNS, *FACTS.values()) for name in names) | {
    f"{name}{inner}"
    for name in ("creator", "artist", "author", "photographer", "owner", "user")
    for inner in ("realname", "name", "nick", "username")
}
NAMES_OF_PEOPLE = ("realname", "name", "nick", "username", "title", "id")
MOST_COLUMNS = 500  # names of a list that are looked at
LONGEST_COLUMN = 200  # characters of a name
MOST_ADDRESSES = 1000  # of one row
_PUNCTUATION = re.compile(r"[\W_]+")
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_OTHER_SIDES = frozenset((*FACTS["width"], *FACTS["height"])) - {"width", "height"}
_LINKS = ("page", "creator_url", "license_url", "thumb")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
# An address of Creative Commons says which licence it is, and in which version.
_CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/(by(?:-nc)?(?:-nd|-sa)?|zero|mark)/(\d\.\d)\b",
    re.IGNORECASE,
)
_DAMAGED = re.compile("[\ufffd\ud800-\udfff]")  # letters that a wrong encoding has cost


class NamedRow(dict[str, Any]):
    """A row under normal names; `names` are those of its columns: (normal, as the list writes it)."""

    __slots__ = ("names",)
    names: tuple[tuple[str, str], ...]


def normal(name: str) -> str:
    """Returns a column's name without case, blanks and punctuation; empty for one that is longer than any."""
    return _normal(name) if len(name) <= LONGEST_COLUMN else ""


@lru_cache(maxsize=4096)
def _normal(name: str) -> str:
    return _PUNCTUATION.sub("", name.casefold())


def url_column(names: Iterable[str]) -> str:
    """Returns the column that holds the address, as it is written; empty where none is named like one."""
    found = {normal(name): name for name in islice(names, MOST_COLUMNS) if isinstance(name, str)}
    return next((found[name] for name in URL_NAMES if name in found), "")


def named(row: Mapping[str, Any]) -> NamedRow:
    """Returns a row under normal names, what stands inside an object also under both names; the first one counts."""
    if len(row) > MOST_COLUMNS or max(map(len, row), default=0) > LONGEST_COLUMN:  # the names are kept below
        row = {key: row[key] for key in islice(row, MOST_COLUMNS) if len(key) <= LONGEST_COLUMN}
    names = _normal_names(tuple(row))
    found = NamedRow({name: row[key] for name, key in names})
    found.names = names
    if dict in set(map(type, found.values())):
        for name, value in list(found.items()):
            if type(value) is dict:
                for inner, held in islice(value.items(), max(0, 2 * MOST_COLUMNS - len(found))):
                    found.setdefault(name + normal(str(inner)), held)
    return found


@lru_cache(maxsize=256)
def _normal_names(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Returns the normal names of columns, each with the column it stands for."""
    found: dict[str, str] = {}
    for key in keys:
        found.setdefault(normal(key), key)
    return tuple(found.items())


def is_link(text: str) -> bool:
    """True for what looks like one whole address."""
    text = text.strip()
    return ("://" in text[:12] or text.startswith("//")) and " " not in text and len(text) > 8


def link_of(value: Any) -> str:
    """Returns an address as meant: `&amp;` becomes `&`, once, where every `&` of it is written like that."""
    found = address(value)
    if "&" in found and found.count("&") == len(_ENTITY.findall(found)):
        return address(unescape(found))
    return found


def web_link(value: Any) -> str:
    """Returns a web address; a name of a site or a path is none, nor is one with letters that were lost."""
    found = link_of(value)
    return found if found.startswith(("http://", "https://")) and not _DAMAGED.search(found) else ""


def record_of(number: int, row: Mapping[str, Any], column: str = "") -> Iterator[ImageRecord | str]:
    """Yields the pictures of a list's row, or the reason why it has none: `no_address` or `bad_encoding`.

    `column` is the normal name of the column with the address; another one that may be a page's does not stand in.
    """
    value = row.get(column)
    if value in (None, "") and (column not in PICTURE_NAMES or not column):
        value = next((row[name] for name in URL_NAMES if row.get(name)), None)
    elif value in (None, ""):
        value = next((row[name] for name in PICTURE_NAMES if row.get(name)), None)
    if type(value) is dict:
        value = next((value[name] for name in ("url", "src") if value.get(name)), None)
    for one in value[:MOST_ADDRESSES] if isinstance(value, list) and value else (value,):
        link = link_of(one)
        if not _SCHEME.match(link):
            yield "no_address"
        elif _DAMAGED.search(link):
            yield "bad_encoding"
        else:
            yield _unwrapped(number, row, link)


def _unwrapped(number: int, row: Mapping[str, Any], link: str) -> ImageRecord:
    """Returns a row's picture, known by the address that a proxy's wraps, as in raw answers; the proxy's stays too."""
    inner = unwrap(link)
    record = _record(digest(inner or link), number, row, inner or link)
    if inner:
        first, *others = record.variants
        proxy = VariantRecord("preview", link, referer=record.page_url)
        record.variants = (first, proxy, *(other for other in others if other.url != link))
    return record


def sidecar_record(engine_id: str, rank: int, facts: Mapping[str, Any], name: str = "") -> ImageRecord:
    """Returns a picture's record from its sidecar; `name` is its title where the sidecar knows none."""
    row: dict[str, Any] = named(facts)
    url = web_link(next((row[key] for key in URL_NAMES if row.get(key)), None))
    if _is_takeout(row):  # its address is the page of somebody's own photo, its title the file's name
        row, url = row | {"pageurl": url, "title": None}, ""
    record = _record(engine_id, rank, row, url)
    if not url and text(row.get("contenttype")).startswith("image/") and record.page_url:
        url, record.page_url = record.page_url, ""  # the type of what was fetched: its `source` is the picture's own
        record.domain = host_of(url)
        record.variants = (VariantRecord("original", url, record.width, record.height),)
    record.title = record.title or name
    record.extra = _extra(row)
    return record


def _is_takeout(row: Mapping[str, Any]) -> bool:
    return "phototakentime" in row and ("geodata" in row or "imageviews" in row or "creationtime" in row)


def _record(engine_id: str, rank: int, row: Mapping[str, Any], url: str) -> ImageRecord:
    facts, links = _present(tuple(row))
    found: dict[str, Any] = {}  # only what a row has: most have three of twenty facts
    for fact, names in facts:
        for name in names:
            if row[name] not in _NOTHING:
                found[fact] = row[name]
                break
    linked = {fact: next((link for name in names if (link := web_link(row[name]))), "") for fact, names in links}
    page, thumb = linked.get("page", ""), linked.get("thumb", "")
    page = "" if page == url else page
    (width, height), size = sides_of(row), whole(found.get("bytes"))
    title, snippet = _words(found.get("title")), _words(found.get("snippet"))
    original = (VariantRecord("original", url, width, height, size, referer=page),) if url else ()
    record = ImageRecord(
        engine_id=engine_id,
        rank=rank,
        page_url=page,
        title=title,
        snippet=snippet if snippet != title else "",
        domain=host_of(page) or host_of(url),
        width=width,
        height=height,
        bytes=size,
        creator=_creator(found),
        creator_url=linked.get("creator_url", ""),
        license=_license(found.get("license")),
        license_url=linked.get("license_url", ""),
        variants=(*original, VariantRecord("thumb", thumb, referer=page)) if thumb and thumb != url else original,
    )
    if not record.license and (match := _CREATIVE_COMMONS.match(record.license_url)):
        code, version = match[1].lower(), match[2]
        record.license = license_name({"zero": "cc0", "mark": "pdm"}.get(code, code), version)
    if "published_at" in found:
        record.published_at = known(text(found["published_at"]))
    if "attribution" in found:
        record.attribution = known(plain(found["attribution"]))
    if list_id := text(found.get("id")):
        record.extra = {"list_id": list_id}
    return record


_Columns = tuple[tuple[str, tuple[str, ...]], ...]  # of each fact, by what is tried first


@lru_cache(maxsize=256)
def _present(names: tuple[str, ...]) -> tuple[_Columns, _Columns]:
    """Returns the columns that a row of these names may have each fact from, and each fact that is an address."""
    held = set(names)
    if "descriptionurl" in held:  # as Wikimedia Commons answers: its `user` has sent the file and need not have made it
        held -= {"user", "username"}
    found = [(fact, tuple(name for name in columns if name in held)) for fact, columns in FACTS.items()]
    found = [(fact, columns) for fact, columns in found if columns]
    return (
        tuple((fact, columns) for fact, columns in found if fact not in _LINKS),
        tuple((fact, columns) for fact, columns in found if fact in _LINKS),
    )


def sides_of(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Returns the original's width and height; unknown where a row tells only those that a tool made."""
    resized = "originalwidth" in row or "originalheight" in row or ("status" in row and "key" in row)
    if resized:
        return whole(row.get("originalwidth")), whole(row.get("originalheight"))
    if "width" in row and "height" in row and row.keys().isdisjoint(_OTHER_SIDES):
        return whole(row["width"]), whole(row["height"])
    width, height = (
        next((number for name in FACTS[side] if (number := whole(row.get(name)))), None) for side in ("width", "height")
    )
    return width, height


def _words(value: Any) -> str:
    """Returns text; of several the first."""
    if not value:
        return ""
    if isinstance(value, list):
        value = next((one for one in value if isinstance(one, str) and one), None)
    return known(plain(value))


def _license(value: Any) -> str:
    """Returns a licence's name; an address is none, and a number tells one to its own service only."""
    name = known(plain(value)) if value else ""
    return "" if name.isdecimal() or web_link(name) else name


def _creator(found: Mapping[str, Any]) -> str:
    value = found.get("creator")
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, dict):  # some tools wrap a person's name in an object
        value = next((value[name] for name in NAMES_OF_PEOPLE if value.get(name)), None)
    if not value and ("firstname" in found or "lastname" in found):
        value = " ".join(filter(None, (known(plain(found.get(part))) for part in ("firstname", "lastname"))))
    return known(plain(value)) if value else ""


def _extra(row: Mapping[str, Any]) -> dict[str, Any]:
    held = {
        fact: next((row[name] for name in FACTS[fact] if row.get(name)), None) for fact in ("tags", "query", "source")
    }
    tags = held["tags"]
    words = [plain(tag) for tag in tags[:200]] if isinstance(tags, list) else plain(tags).split()[:200]
    made = {"tags": [word for word in words if word], "query": plain(held["query"]), "source": text(held["source"])}
    return {key: value for key, value in made.items() if value}
